"""python -m demo.extraction.add_zones FOLDER: measure the zones of an axis that was made without them.

The replies in the folder's rollouts.jsonl are read again by the model. From those that the axis was made from
come the axes without a fold of the roles, on which the held-out replies are then measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.files import load_axis, save_axis
from demo.axis.gates import what_a_reply_tells
from demo.extraction.add_gates import with_sections
from demo.extraction.vectors import check_histories
from demo.extraction.zones import (
    Record,
    Watched,
    axes_from_texts,
    folds_of,
    measure_zones,
    read_states,
    sample,
    usable,
)
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress, ProgressLine

# The axis that the texts give must have at least this cosine with the one in the folder. It is not 1, because
# a text does not always have the tokens that were generated.
LEAST_COSINE = 0.99


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.add_zones", description=__doc__)
    parser.add_argument("folder", type=Path, help="axis folder with rollouts.jsonl")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="the axis's model (default: %(default)s)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    options = parser.parse_args(arguments)
    axis, records = load_axis(options.folder), read_records(options.folder)
    check_remeasurable(axis, records)
    model = load_model(options.model, device=options.device, dtype=options.dtype, progress=ConsoleProgress())
    axis.check_model(model)
    axis = with_zones(model, axis, records)
    save_axis(axis, options.folder)
    report = options.folder / "report.md"
    if report.is_file():
        report.write_text(with_sections(report.read_text(encoding="utf-8"), axis), encoding="utf-8")
    print(what_a_reply_tells(axis.manifest))


def check_remeasurable(axis: AssistantAxis, records: Sequence[Record]) -> None:
    """Check that the zones can be measured on the replies, read again. Raises UserError."""
    if axis.manifest.get("variant") == "standardised":
        raise UserError(
            "This is a standardised axis, of which only an extraction measures the zones; extract it again."
        )
    check_histories(axis.manifest, records)


def with_zones(model: LoadedModel, axis: AssistantAxis, records: Sequence[Record]) -> AssistantAxis:
    """The same axis with its zones.

    Raises:
        UserError: the axis was not made from these texts, or has no held-out replies of both kinds.
    """
    keep_all = bool(axis.manifest.get("uptake", {}).get("keep_all"))
    least = int(axis.manifest.get("uptake", {}).get("least", 1))
    made_from = usable(records, "extract", keep_all)
    again = {record["index"] for record in sample(made_from)}
    means, kept = [], {}
    shown = _shown("replies of the axis")
    for record, states in zip(made_from, read_states(model, made_from, axis.probe_layer, shown), strict=True):
        means.append(states.mean(0))
        if record["index"] in again:
            kept[record["index"]] = states

    def read(chosen: Sequence[Record]) -> Iterator[Tensor]:
        """The states of held-out replies, and of those that were read for the axis."""
        held_out = [record for record in chosen if record["index"] not in kept]
        yield from read_states(model, held_out, axis.probe_layer, _shown("held-out replies"))
        yield from (kept[record["index"]] for record in chosen if record["index"] in kept)

    axes, whole = axes_from_texts(made_from, means, least, folds_of(records))
    cosine = float(torch.cosine_similarity(whole, axis.direction[axis.probe_layer], dim=0))
    if cosine < LEAST_COSINE:
        raise UserError(
            "The replies in rollouts.jsonl give another axis than the one in the folder "
            f"(cosine {cosine:.3f}); give the folder as python -m demo.extraction wrote it, and its model."
        )
    zones = measure_zones(read, records, axes, keep_all)
    if zones is None:
        raise UserError("rollouts.jsonl holds no held-out replies of both kinds; extract the axis again.")
    return replace(axis, manifest=axis.manifest | {"zones": zones})


def read_records(folder: Path) -> list[Record]:
    """The lines of rollouts.jsonl. Raises UserError."""
    path = folder / "rollouts.jsonl"
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); extract the axis again.") from error


def _shown(label: str) -> Watched:
    line = ProgressLine(label)
    return lambda done, total: line.update(done / total)


if __name__ == "__main__":
    raise SystemExit(main())
