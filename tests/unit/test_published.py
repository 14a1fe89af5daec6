"""The registry of published models, and a published file where one is available."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from demo.axis import published as registry
from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis
from demo.axis.importer.build import ImportOptions
from demo.axis.importer.capping_config import parse_id
from demo.utils.paths import ROOT
from tests.helpers.published_axis import refused

PUBLISHED = Path(os.environ.get("PERSONA_DRIFT_PUBLISHED_AXES") or ROOT.parent / "shared" / "published-axes")
CONTRAST = PUBLISHED / "llama-3.3-70b" / "contrast_vectors.pt"
needs_contrast = pytest.mark.skipif(not CONTRAST.is_file(), reason="the published file is not available")


@pytest.mark.parametrize(
    ("spec", "name", "shape", "probe", "band"),
    [
        ("google/gemma-2-27b-it", "Gemma-2-27B", (46, 4608), 22, None),
        ("Qwen/Qwen3-32B", "Qwen3-32B", (64, 5120), 32, (46, 53)),
        ("meta-llama/Llama-3.3-70B-Instruct", "Llama-3.3-70B", (80, 8192), 40, (56, 71)),
    ],
)
def test_the_registry_lists_what_was_published(spec, name, shape, probe, band):
    entry = registry.match_model(spec)
    assert entry is not None and entry.name == name
    assert ((entry.layers, entry.hidden_size), entry.probe_layer, entry.band) == (shape, probe, band)
    assert registry.match_model(entry.folder) is entry
    named = parse_id(entry.experiment) if entry.experiment else None
    assert (named and (named.first, named.last, named.percentile)) == (band and (*band, "0.25"))


def test_models_are_recognised_by_name():
    for spec in ("qwen-3-32b", "/models/Qwen3-32B-AWQ/", "me/Qwen3-32B", "data:qwen-3-32b"):
        assert registry.match_model(spec) is registry.QWEN
    for spec in (
        "Qwen/Qwen3-4B",
        "qwen3-320b",
        "Qwen3-32B/other",
        "",
        "llama-3.1-70b",
        "google/gemma-2-2b-it",
    ):
        assert registry.match_model(spec) is None


def test_neuronpedia_caps_are_those_of_llama_only():
    caps = registry.LLAMA.caps
    assert sorted(caps) == list(range(32, 56))
    assert (caps[32], caps[40], caps[55]) == (-1.234, -1.875, -1.984)
    assert not registry.QWEN.caps and not registry.GEMMA.caps


@pytest.fixture(scope="module")
def llama() -> AssistantAxis:
    return load_axis(CONTRAST)


@needs_contrast
def test_the_llama_contrast_vectors_have_the_known_norms_and_cosines(llama):
    norms = {
        0: 0.0228, 1: 0.0295, 2: 0.0396, 20: 0.661, 39: 1.4556, 40: 1.5259, 41: 1.6097, 56: 2.673,
        71: 3.304, 78: 4.585, 79: 5.904,
    }  # fmt: skip
    for layer, norm in norms.items():
        assert float(llama.norm[layer]) == pytest.approx(norm, abs=1e-3)
    assert float(llama.norm.mean()) == pytest.approx(1.723, abs=1e-3)
    assert int(llama.norm.argmax()) == 79
    cosines = {
        (10, 11): 0.947, (40, 41): 0.984, (56, 57): 0.994, (40, 56): 0.841, (40, 71): 0.695,
        (40, 20): 0.561, (40, 0): 0.022,
    }  # fmt: skip
    for (one, other), cosine in cosines.items():
        assert float(llama.unit[one] @ llama.unit[other]) == pytest.approx(cosine, abs=1e-3)


@needs_contrast
def test_the_llama_contrast_vectors_are_turned_around_and_get_floors(llama):
    stored = torch.load(CONTRAST, map_location="cpu", weights_only=True).float()
    assert torch.equal(llama.direction, -stored)
    floor = llama.floors["neuronpedia-p0.25"]
    for layer in range(80):
        cap = registry.LLAMA.caps.get(layer)
        assert float(floor[layer]) == (-math.inf if cap is None else float(torch.tensor(-cap)))
    assert (llama.probe_layer, llama.cap_band) == (40, (32, 55))
    assert llama.manifest["model"]["id"] == "meta-llama/Llama-3.3-70B-Instruct"
    refused("contradicts", CONTRAST, ImportOptions(sign="assistant"))


@pytest.mark.skipif(
    not CONTRAST.with_name("roles_layer40-min.pt").is_file(), reason="the file is not available"
)
def test_the_published_pickle_of_a_pca_is_refused():
    refused("holds pickled Python objects", CONTRAST.with_name("roles_layer40-min.pt"))
