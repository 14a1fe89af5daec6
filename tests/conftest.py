"""Shared fixtures. The default model is loaded once for all tests."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from demo.axis.importer.build import ImportOptions
from demo.axis.store import AXES_VARIABLE
from demo.models.loading import LoadedModel, load_model
from demo.utils.paths import ROOT
from tests.helpers.published_axis import Published, write_caps
from tests.helpers.scripted import PatientEngine
from tests.trust import held


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report every passed test that is marked `trust` to `tests.trust`."""
    report = yield
    marker = item.get_closest_marker("trust")
    if marker and report.when == "call" and report.passed:
        what, how, group = marker.args
        held(what, 1, how, group)
    return report


@pytest.fixture(scope="session", autouse=True)
def no_axes_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Axes that the user has made do not enter the tests, and tests leave none behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(AXES_VARIABLE, str(tmp_path_factory.mktemp("axes")))
        yield


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    """The default model, in float32, in which results can be compared closely."""
    return load_model(dtype="float32", device="cpu")


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def options() -> ImportOptions:
    return ImportOptions(experiment="layers_2:5-p0.25")


@pytest.fixture
def caps(tmp_path) -> Path:
    return write_caps(tmp_path)


@pytest.fixture
def patient() -> PatientEngine:
    """An engine that holds its replies back until the test sets `go`."""
    return PatientEngine()
