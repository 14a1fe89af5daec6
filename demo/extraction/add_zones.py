"""python -m demo.extraction.add_zones FOLDER: measure the zones of an axis that was made without them.

The replies in the folder's rollouts.jsonl are read again by the model. From those that the axis was made from
come the axes without a fold of the roles, on which the held-out replies are then measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from demo.axis.gates import what_a_reply_tells
from demo.extraction.add_gates import with_sections
from demo.extraction.axis import fold_axes
from demo.extraction.texts import ROLLOUTS, Record, read_again, read_records
from demo.extraction.vectors import ALL
from demo.extraction.zones import measure_zones, read_states
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress, ProgressLine


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.add_zones", description=__doc__)
    parser.add_argument("folder", type=Path, help="axis folder with rollouts.jsonl")
    parser.add_argument("--model", help="name, folder or hub id (default: the one that axis.json names)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--dtype", help="auto, float32, bfloat16, float16 or int8 (default: that of the axis)"
    )
    options = parser.parse_args(arguments)
    axis, records = load_axis(options.folder), read_records(options.folder, split=None)
    made_for = axis.manifest["model"]
    spec, dtype = options.model or made_for["id"], options.dtype or made_for.get("dtype", "auto")
    model = load_model(
        spec, device=options.device, dtype=dtype, progress=ConsoleProgress(), base=bool(made_for.get("base"))
    )
    for note in axis.check_model(model):
        print(note)
    axis = with_zones(model, axis, records)
    save_axis(axis, options.folder)
    report = options.folder / "report.md"
    if report.is_file():
        report.write_text(with_sections(report.read_text(encoding="utf-8"), axis), encoding="utf-8")
    print(what_a_reply_tells(axis.manifest))


def with_zones(model: LoadedModel, axis: AssistantAxis, records: Sequence[Record]) -> AssistantAxis:
    """The same axis with its zones.

    Args:
        records: all lines of its rollouts.jsonl.

    Raises:
        UserError: the axis was not made from these texts, or has no held-out replies of both kinds.
    """
    made_from = [record for record in records if record["split"] == "extract"]
    if not made_from:
        raise UserError(f"The axis has no {ROLLOUTS} beside it to measure zones from; extract it again.")
    _, plan, vectors = read_again(model, axis, made_from, (axis.probe_layer,))
    counting = [role["name"] for role in axis.manifest["roles"] if role.get("counts")]
    axes = fold_axes(vectors.cast(counting), plan)[:, 0]
    line = ProgressLine("held-out replies")

    def read(chosen: Sequence[Record]) -> Iterator[Tensor]:
        return read_states(model, chosen, axis.probe_layer, lambda done, total: line.update(done / total))

    zones = measure_zones(read, records, axes, keep_all=vectors.verdicts == ALL)
    if zones is None:
        raise UserError(f"{ROLLOUTS} holds no held-out replies of both kinds; extract the axis again.")
    return replace(axis, manifest=axis.manifest | {"zones": zones})


if __name__ == "__main__":
    raise SystemExit(main())
