"""Shared fixtures: the real default model is loaded once for all tests."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page

from demo.axis.importer.build import ImportOptions
from demo.models.loading import LoadedModel, load_model
from demo.utils.paths import ROOT
from tests.helpers.browser import Watched, chromium_page, running_app
from tests.helpers.published_axis import Published, write_caps
from tests.helpers.scripted import PatientEngine
from tests.trust import held


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test marked `trust` that passed is told to `tests.trust`."""
    report = yield
    marker = item.get_closest_marker("trust")
    if marker and report.when == "call" and report.passed:
        what, how, group = marker.args
        held(what, 1, how, group)
    return report


@pytest.fixture(scope="session")
def model() -> LoadedModel:
    """The real default model, in float32 so that equality means equality."""
    return load_model(dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """`python app.py` as a user starts it."""
    with running_app() as address:
        yield address


@pytest.fixture
def opened(address: str) -> Iterator[tuple[Page, Watched]]:
    """A fresh browser on the page, which must neither reach elsewhere nor report an error."""
    with chromium_page(address) as (page, watched):
        yield page, watched
        assert watched.outside == [], "the page reached for something that is not served with it"
        assert watched.errors == []


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
    """An engine that answers when the test says go."""
    return PatientEngine()
