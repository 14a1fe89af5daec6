"""The page that lays the axes of several models side by side."""

from __future__ import annotations

import json

import pytest

from demo.evaluation.models import PAGE, measured, page
from demo.extraction.archetypes import HELPERS, SPIRITUAL, shares_below, standing
from demo.utils.errors import UserError
from demo.utils.paths import AXES


def test_the_document_is_what_the_command_writes_of_the_shipped_axes():
    axes = [measured(path.parent) for path in sorted(AXES.glob("*/axis.json"))]
    assert PAGE.read_text(encoding="utf-8") == "\n".join(page(axes)) + "\n"
    assert len(axes) >= 3


def test_an_axis_without_evaluation_or_common_roles_has_dashes(tmp_path):
    roles = [{"name": f"r{n}", "projection": float(n), "counts": n % 2 == 0} for n in range(4)]
    manifest = {
        "model": {"dtype": "float32", "layers": 4},
        "probe_layer": 2,
        "cap": {"layers": [1, 2], "floor": "p25"},
        "gates": {"auc": {"value": 0.5, "threshold": 0.95, "passed": False}},
        "roles": roles,
    }
    (tmp_path / "axis.json").write_text(json.dumps(manifest))
    text = "\n".join(page([measured(tmp_path), measured(AXES / "smollm2-135m-instruct")]))
    row = next(line for line in text.splitlines() if line.startswith(f"| {tmp_path.name} | float32"))
    assert "2 of 4" in row and "0 of 1" in row and "`auc`" in row
    assert f"| {tmp_path.name} | – | – |" in text, "no role in common with either order"


def test_archetypes_stand_where_a_plain_count_puts_them():
    order = {name: float(place) for place, name in enumerate([*SPIRITUAL, "pirate", *HELPERS])}
    shares = shares_below(order)
    for name, value in order.items():
        others = [other for other in order if other != name]
        assert shares[name] == pytest.approx(sum(order[o] < value for o in others) / len(others))
    found = standing(order)
    assert found is not None
    assert found.helpers == pytest.approx(sum(shares[name] for name in HELPERS) / len(HELPERS))
    assert found.difference == pytest.approx(found.helpers - found.spiritual)
    assert 0 < found.low < found.difference < found.high
    assert standing({"therapist": 1.0, "coach": 0.5, "mystic": 0.0}) is None


def test_archetypes_that_stand_in_no_order_show_no_difference():
    mixed = [name for pair in zip(HELPERS, SPIRITUAL, strict=True) for name in pair]
    found = standing({name: float(place) for place, name in enumerate(mixed)})
    assert found is not None and found.low < 0 < found.high


def test_a_folder_without_an_extracted_axis_is_refused(tmp_path):
    (tmp_path / "axis.json").write_text("{}")
    with pytest.raises(UserError, match="without gates and roles"):
        measured(tmp_path)
