"""python -m demo.extraction.add_gates FOLDER: the gates on roles, late turns and the cap, measured anew.

It is for an axis that was made without them, or has another cap since, and changes nothing else of the axis.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from demo.axis.gates import GATES, gate
from demo.engine.protocol import Sampling
from demo.extraction.controls import order_certainty
from demo.extraction.late_turns import measure_late_turns, with_late_turns
from demo.extraction.plan import PRESETS, Plan, make_plan
from demo.extraction.report import cap_sentence, gates_section, late_turns_section
from demo.extraction.sweep import Sweep
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress

CAP_GATES = ("fluency", "sameness")

TALKS = PRESETS["standard"].late_talks

_BATCH = 64  # replies that are generated together


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    axis = with_role_order(load_axis(options.folder))
    made_for = axis.manifest["model"]
    spec, dtype = options.model or made_for["id"], options.dtype or made_for.get("dtype", "auto")
    model = load_model(
        spec, device=options.device, dtype=dtype, progress=ConsoleProgress(), base=bool(made_for.get("base"))
    )
    for note in axis.check_model(model):
        print(note)
    plan = plan_of(axis.manifest, model, options.talks)
    sampling = Sampling(**axis.manifest["sampling"])
    axis = with_late_turns(axis, measure_late_turns(model, axis, plan, sampling))
    axis = axis if cap_is_measured(axis) else with_cap_gates(axis, model, plan)
    save_with_report(axis, options.folder)
    for name in ("role_order", "late_turns", *CAP_GATES):
        print(name, axis.manifest["gates"][name])


def is_extracted(axis: AssistantAxis) -> bool:
    """Whether the axis has roles and gates, and says how its replies were sampled."""
    return {"roles", "gates", "sampling"} <= axis.manifest.keys()


def plan_of(manifest: dict[str, Any], model: LoadedModel, talks: int = TALKS) -> Plan:
    """A plan that asks for roles as the axis's own did."""
    asked = {"role_prompts": manifest.get("role_prompts", "plain"), "late_talks": talks}
    return make_plan(model.slug.split("-")[0], replace(PRESETS["standard"], **asked), base=model.base)


def with_role_order(axis: AssistantAxis) -> AssistantAxis:
    """The same axis with the gate, among its gates in their usual order.

    Raises:
        UserError: the axis was not extracted, so it has neither roles nor gates.
    """
    if not is_extracted(axis):
        raise UserError(
            "This axis has no roles with projections; extract one with python -m demo.extraction."
        )
    measured = gate("role_order", order_certainty(axis.manifest["roles"]))
    gates = axis.manifest["gates"] | {"role_order": measured}
    ordered = {name: gates[name] for name in GATES if name in gates}
    return replace(axis, manifest=axis.manifest | {"gates": ordered})


def cap_is_measured(axis: AssistantAxis) -> bool:
    """Whether the gates on the cap are those of the axis's own: one that the extraction's sweep tried."""
    own = {"layers": list(axis.cap_band), "floor": axis.cap_floor}
    tried = axis.manifest.get("sweep", [])
    return axis.cap_only_below is None and any(own.items() <= trial.items() for trial in tried)


def with_cap_gates(axis: AssistantAxis, model: LoadedModel, plan: Plan) -> AssistantAxis:
    """The same axis with the gates that its cap decides, measured as the extraction's sweep does."""
    with TemporaryDirectory() as folder:
        sweep = Sweep(model, axis, plan, Path(folder) / "sweep.json", axis.manifest.get("seed", 0), _BATCH)
        uncapped, capped = sweep.try_own()
    measured = {"fluency": capped.fluency(uncapped), "sameness": capped.same}
    gates = axis.manifest["gates"] | {name: gate(name, measured[name]) for name in CAP_GATES}
    return replace(axis, manifest=axis.manifest | {"gates": gates})


def save_with_report(axis: AssistantAxis, folder: Path) -> None:
    """Save the axis in `folder`, and bring the gates in its report up to date, if it has one."""
    save_axis(axis, folder)
    report = folder / "report.md"
    if report.is_file():
        report.write_text(with_sections(report.read_text(encoding="utf-8"), axis), encoding="utf-8")


def with_sections(report: str, axis: AssistantAxis) -> str:
    """The same report with the cap, the gates and the talks that the axis has now."""
    report = re.sub(r"Probe layer \d+; cap at .*?\)\.", lambda _: cap_sentence(axis), report, count=1)
    gates = "\n".join(gates_section(axis)).strip()
    report = re.sub(r"^## Gates at the probe layer.*?(?=^## )", f"{gates}\n\n", report, flags=re.M | re.S)
    if "late_turns" not in axis.manifest:  # zones can be added before the talks are
        return report
    talks = "\n".join(late_turns_section(axis)).strip()
    report = re.sub(r"^## Late turns.*?(?=^## )", "", report, flags=re.M | re.S)
    return report.replace("\n## Principal components", f"\n{talks}\n\n## Principal components", 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.add_gates", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="axis folder")
    add("--model", help="model name, local folder or hub id (default: the one that axis.json names)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add("--dtype", help="auto, float32, bfloat16, float16 or int8 (default: that of the axis)")
    add(
        "--talks",
        type=int,
        default=TALKS,
        help="number of scripted talks on either side (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
