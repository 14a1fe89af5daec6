"""python -m demo.extraction.add_role_order FOLDER: the gate on the order of roles, for an axis without it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from demo.axis.gates import GATES, gate
from demo.extraction.controls import order_certainty
from demo.extraction.report import gates_section
from demo.utils.cli import command
from demo.utils.errors import UserError


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.add_role_order", description=__doc__)
    parser.add_argument("folder", type=Path, help="axis folder")
    folder = parser.parse_args(arguments).folder
    axis = with_role_order(load_axis(folder))
    save_axis(axis, folder)
    report = folder / "report.md"
    if report.is_file():
        report.write_text(with_gates(report.read_text(encoding="utf-8"), axis), encoding="utf-8")
    print(axis.manifest["gates"]["role_order"])


def with_role_order(axis: AssistantAxis) -> AssistantAxis:
    """The same axis with the gate, among its gates in their usual order.

    Raises:
        UserError: the axis was not extracted, so it has neither roles nor gates.
    """
    if not {"roles", "gates"} <= axis.manifest.keys():
        raise UserError(
            "This axis has no roles with projections; extract one with python -m demo.extraction."
        )
    measured = gate("role_order", order_certainty(axis.manifest["roles"]))
    gates = axis.manifest["gates"] | {"role_order": measured}
    ordered = {name: gates[name] for name in GATES if name in gates}
    return replace(axis, manifest=axis.manifest | {"gates": ordered})


def with_gates(report: str, axis: AssistantAxis) -> str:
    """The same report with the gates that the axis has now."""
    section = "\n".join(gates_section(axis)).strip()
    return re.sub(r"^## Gates at the probe layer.*?(?=^## )", f"{section}\n\n", report, flags=re.M | re.S)


if __name__ == "__main__":
    raise SystemExit(main())
