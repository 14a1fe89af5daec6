"""Shared fixtures: the real default model is loaded once for all tests."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page

from demo.axis import AssistantAxis
from demo.axis_import import ImportOptions
from demo.models import LoadedModel, load_model
from tests.browser import Watched, chromium_page, running_app
from tests.published_axis import Published, write_caps
from tests.scripted import PatientEngine
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


def random_axis(
    layers: int, hidden: int, probe: int, band: tuple[int, int], model_id: str = "test", seed: int = 0
) -> AssistantAxis:
    """An axis with random directions, for plumbing tests that make no claim about persona."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(layers, hidden, generator=generator)
    role_mean = torch.randn(layers, hidden, generator=generator)
    spread = torch.linspace(-1, 1, 4)[:, None] * direction.norm(dim=-1)
    manifest = {
        "format": 1,
        "model": {"id": model_id},
        "probe_layer": probe,
        "cap": {"layers": list(band), "floor": "p25"},
    }
    floors = dict(zip(("p05", "p25", "p50", "p75"), spread, strict=True))
    return AssistantAxis(direction, role_mean, role_mean + direction, floors, manifest)


def with_components(axis: AssistantAxis, seed: int = 1) -> AssistantAxis:
    """The same axis with three random orthonormal components per layer, on the Assistant's side of the average role."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(axis.layers, axis.direction.shape[1], 3, generator=generator)
    rows = torch.linalg.qr(random).Q.permute(2, 0, 1)
    toward = (rows * axis.direction).sum(-1, keepdim=True)
    return replace(axis, pca=torch.where(toward < 0, -rows, rows).contiguous())


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
    return Path(__file__).resolve().parent.parent


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
