"""Further directions: their scale, their floors from both sides, and their file, also one of a stranger."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.directions import (
    FILE,
    PERCENTILES,
    Direction,
    Directions,
    as_stored,
    components,
    cosine_with_axis,
    kept_layers,
    load_directions,
    save_directions,
)
from demo.axis.files import axis_digest, load_axis
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from tests.helpers.axes import random_axis, with_components

AXIS = with_components(random_axis(6, 16, 2, (3, 4)))


def made(name: str = "calm", seed: int = 0, **changes: Any) -> Direction:
    """A random direction at the layers that are kept of AXIS."""
    generator = torch.Generator().manual_seed(seed)
    layers = kept_layers(AXIS)
    vector = as_stored(torch.randn(len(layers), 16, generator=generator))
    spread = torch.randn(len(PERCENTILES), len(layers), generator=generator).sort(0).values
    direction = Direction(
        name=name,
        kind="trait",
        layers=layers,
        vector=vector,
        origin=torch.randn(len(layers), generator=generator),
        floors=dict(zip(PERCENTILES, spread, strict=True)),
        cosine=round(cosine_with_axis(AXIS, layers, vector), 4),
        agreement=0.5,
        poles=("its opposite", "calm"),
    )
    return replace(direction, **changes)


def directions(*listed: Direction) -> Directions:
    return Directions(listed, axis_digest(AXIS))


def test_the_vector_leads_from_0_to_1_on_the_scale():
    direction = made()
    for place, layer in enumerate(direction.layers):
        start = float(direction.origin[place])
        end = start + float(direction.vector[place] @ direction.unit[place])
        assert direction.to_units(start, layer) == pytest.approx(0)
        assert direction.to_units(end, layer) == pytest.approx(1)
    with pytest.raises(UserError, match="no vector at layer 1; choose one of 2, 3, 4"):
        direction.to_units(0.0, 1)


def test_a_downward_floor_is_the_percentile_of_the_turned_direction():
    replies = torch.randn(401, 16, generator=torch.Generator().manual_seed(3))
    direction = made()
    shares = [int(name[1:]) / 100 for name in PERCENTILES]
    projections = replies @ direction.unit.T
    floors = {name: projections.quantile(q, dim=0) for name, q in zip(PERCENTILES, shares, strict=True)}
    direction = replace(direction, floors=floors)
    for name, share in zip(PERCENTILES, shares, strict=True):
        for place, layer in enumerate(direction.layers):
            turned = (replies @ -direction.unit[place]).quantile(share)
            assert direction.floor(name, layer, upward=False) == pytest.approx(float(turned), abs=1e-5)
            assert direction.floor(name, layer) == float(floors[name][place])
    with pytest.raises(UserError, match="no floor 'p33'"):
        direction.floor("p33", 3)
    with pytest.raises(UserError, match="it has none"):
        replace(direction, floors={}).floor("p25", 3)


def test_components_have_the_axis_unit_and_the_average_role_at_0():
    first = components(AXIS)[0]
    assert [one.name for one in components(AXIS)] == ["PC1", "PC2", "PC3"]
    assert first.layers == tuple(range(AXIS.layers)) and not first.floors
    assert torch.allclose(first.norm, AXIS.norm, rtol=1e-5)
    probe = AXIS.probe_layer
    raw = float(AXIS.role_mean[probe] @ first.unit[probe])
    assert first.to_units(raw, probe) == pytest.approx(0, abs=1e-5)
    assert first.cosine > 0
    assert components(replace(AXIS, pca=None)) == []
    assert AXIS.pca is not None
    few = torch.cat([AXIS.pca[:1], torch.zeros_like(AXIS.pca[1:])])
    assert [one.name for one in components(replace(AXIS, pca=few))] == ["PC1"]


def test_a_file_gives_back_what_was_saved(tmp_path: Path):
    other = made(
        "stoic (role)", 1, kind="role", floors={}, agreement=None, layers=(0, 2, 5), notes=("A note.",)
    )
    save_directions(directions(made(), other), tmp_path)
    found = load_directions(tmp_path, AXIS)
    assert list(found) == ["calm", "stoic (role)"] and found.axis == axis_digest(AXIS)
    for one, kept in ((made(), found["calm"]), (other, found["stoic (role)"])):
        tensors = ("vector", "origin")
        for name in tensors:
            assert torch.allclose(getattr(one, name), getattr(kept, name), rtol=1e-6, atol=1e-7)
        assert kept.floors.keys() == one.floors.keys()
        for name, floor in one.floors.items():
            assert torch.equal(kept.floors[name], floor)
        for name in ("name", "kind", "layers", "cosine", "agreement", "poles", "notes"):
            assert getattr(kept, name) == getattr(one, name)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_what_is_stored_is_a_fixed_point(tmp_path: Path):
    vector = torch.randn(4, 3, 576, generator=torch.Generator().manual_seed(5)) * 37
    vector[..., 7] = 4000  # a massive coordinate
    once = as_stored(vector)
    assert torch.allclose(as_stored(once), once, rtol=1e-6, atol=0)
    assert torch.cosine_similarity(once, vector, dim=-1).min() > 1 - 1e-6


def test_no_file_is_no_directions(tmp_path: Path):
    assert len(load_directions(tmp_path, AXIS)) == 0
    save_directions(directions(made()), tmp_path)
    save_directions(directions(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_kinds_are_replaced_and_single_ones_added():
    both = directions(made("calm"), made("pirate", kind="role"))
    assert list(both.replaced("trait", [made("cruel")])) == ["pirate", "cruel"]
    assert list(both.added(made("calm", 4))) == ["pirate", "calm"]
    with pytest.raises(UserError, match="called 'pirate'"):
        both.added(made("pirate"))
    assert [one.name for one in both.of("role")] == ["pirate"]


def test_directions_of_another_axis_are_refused(tmp_path: Path):
    save_directions(directions(made()), tmp_path)
    with pytest.raises(UserError, match="beside another axis"):
        load_directions(tmp_path, random_axis(6, 16, 2, (3, 4), seed=9))


def _entry(key: str, value: Any) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    return lambda tensors, about: about["directions"][0].__setitem__(key, value)


def _tensor(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor], Any], None]:
    return lambda tensors, about: tensors.__setitem__(name, change(tensors[name]))


HOSTILE: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], Any]] = {
    "NaN": _tensor("unit", lambda t: t * float("nan")),
    "zeros": _tensor("unit", torch.zeros_like),
    "no length": _tensor("norm", torch.zeros_like),
    "infinite floor": _tensor("floor_p25", lambda t: t + float("inf")),
    "other size": _tensor("unit", lambda t: t[:, :-1].contiguous()),
    "too few rows": _tensor("origin", lambda t: t[1:].contiguous()),
    "integers": _tensor("origin", lambda t: t.int()),
    "missing tensor": lambda tensors, about: tensors.pop("floor_p95"),
    "layer too high": _entry("layers", [2, 3, 6]),
    "layer below 0": _entry("layers", [-1, 3, 4]),
    "layers out of order": _entry("layers", [3, 2, 4]),
    "no layers": _entry("layers", []),
    "a layer that is no number": _entry("layers", [True, 3, 4]),
    "name of two lines": _entry("name", "a\nb"),
    "name that steers a terminal": _entry("name", "\x1b[2J"),
    "long name": _entry("name", "a" * 81),
    "name that is no text": _entry("name", 3),
    "long pole": _entry("poles", ["a" * 301, "b"]),
    "one pole": _entry("poles", ["a"]),
    "note of two lines": _entry("notes", ["a\nb"]),
    "many notes": _entry("notes", ["a"] * 11),
    "unknown kind": _entry("kind", "spell"),
    "cosine of 2": _entry("cosine", 2),
    "agreement that is text": _entry("agreement", "high"),
    "no list": lambda tensors, about: about.__setitem__("directions", {}),
    "too many": lambda tensors, about: about.__setitem__("directions", about["directions"] * 2001),
    "no format": lambda tensors, about: about.pop("format"),
    "later format": lambda tensors, about: about.__setitem__("format", 2),
    "twice the same name": lambda tensors, about: (
        about["directions"].append(about["directions"][0]),
        [tensors.__setitem__(name, torch.cat([value, value])) for name, value in tensors.items()],
    ),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_strangers_file_is_checked(tmp_path: Path, fault: str):
    save_directions(directions(made()), tmp_path)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        about = json.loads(file.metadata()["about"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    HOSTILE[fault](tensors, about)
    save_file(tensors, tmp_path / FILE, metadata={"about": json.dumps(about)})
    with pytest.raises(UserError, match=r"\.$"):
        load_directions(tmp_path, AXIS)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x08" + bytes(7) + b"{}      "])
def test_a_file_that_is_no_such_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match="no sound directions"):
        load_directions(tmp_path, AXIS)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_directions(directions(made()), tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("demo.axis.directions.save", full)
    with pytest.raises(UserError, match="cannot be written"):
        save_directions(directions(made("cruel")), tmp_path)
    assert (tmp_path / FILE).read_bytes() == before


def test_the_probe_layer_and_the_band_are_kept():
    axis: AssistantAxis = random_axis(30, 4, 20, (18, 25))
    assert kept_layers(axis) == (18, 19, 20, 21, 22, 23, 24, 25)
    assert kept_layers(random_axis(30, 4, 12, (18, 19))) == (12, 18, 19)


def test_the_shipped_directions_belong_to_the_shipped_axis():
    folder = AXES / DEFAULT_MODEL
    axis = load_axis(folder)
    found = load_directions(folder, axis)
    counted = {role["name"].replace("_", " ") for role in axis.manifest["roles"] if role["counts"]}
    assert {one.poles[1] for one in found.of("role")} == counted
    assert [one.name for one in found.of("component")] == ["PC1", "PC2", "PC3"]
    assert found["PC1"].cosine == pytest.approx(axis.manifest["pca"]["cos_pc1"], abs=1e-3)
    # They were measured for a narrower band, which keeps the file small. A second cap acts where they are.
    kept = set(kept_layers(axis))
    assert all(axis.probe_layer in one.layers and one.floors for one in found.values())
    assert all(len(one.layers) >= 8 and set(one.layers) <= kept for one in found.values())
    # The default Assistant is in the middle of its own replies along every direction.
    for one in found.values():
        place, layer = one.index(axis.probe_layer), axis.probe_layer
        middle = float(axis.default_mean[layer] @ one.unit[place])
        assert one.floor("p05", layer) < middle < one.floor("p95", layer)
    assert (folder / FILE).stat().st_size < 5_000_000
