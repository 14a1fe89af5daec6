"""The report beside an axis: what was run, what came out, and which gates it passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from demo.axis import FLOOR_NAMES, AssistantAxis
from demo.extraction.build import Built

_GATE_WORDS = {
    "split_half": "cosine of the axes from two halves of the questions",
    "cos_pc1": "absolute cosine of the axis with the roles' first principal component",
    "default_above_roles": "share of roles whose vector lies below the default",
    "auc": "default against role, per rollout, on roles and questions not used for the axis",
}


def render(built: Built, counts: dict[str, int]) -> str:
    """Markdown text of report.md. counts: rollouts by kind of side, for the first paragraph."""
    return "\n".join(
        [*_head(built.axis, counts), *_gates(built.axis), *_roles(built.axis), *_layers(built), ""]
    )


def _head(axis: AssistantAxis, counts: dict[str, int]) -> Iterator[str]:
    manifest = axis.manifest
    model, (first, last) = manifest["model"], axis.cap_band
    yield f"# Assistant Axis of {model['id']}"
    yield ""
    yield (
        f"Written by `{manifest['created_with']['command']}`. {model['layers']} decoder layers, hidden size "
        f"{model['hidden_size']}, run in {model['dtype']}."
    )
    yield ""
    yield (
        "Axis = mean activation of default replies minus mean role vector, over reply content tokens, at the output of "
        f"every decoder layer. Probe layer {axis.probe_layer}; cap at layers {first} to {last}, floor {axis.cap_floor} "
        "of default reply means."
    )
    yield ""
    yield from _table(("rollouts", "number"), [(kind, str(number)) for kind, number in counts.items()])


def _gates(axis: AssistantAxis) -> Iterator[str]:
    yield from ("", f"## Gates at the probe layer ({axis.probe_layer})", "")
    yield from _table(
        ("gate", "what", "value", "threshold", "passed"),
        [
            (
                name,
                _GATE_WORDS[name],
                f"{gate['value']:.3f}",
                f"{gate['threshold']:.2f}",
                "yes" if gate["passed"] else "NO",
            )
            for name, gate in axis.manifest["gates"].items()
        ],
    )


def _roles(axis: AssistantAxis) -> Iterator[str]:
    yield from ("", "## Roles on the axis", "", "Axis units: 0 = average role, 1 = default Assistant.", "")
    yield from _table(
        ("role", "projection", "rollouts"),
        [(role["name"], f"{role['projection']:+.2f}", str(role["n"])) for role in axis.manifest["roles"]],
    )


def _layers(built: Built) -> Iterator[str]:
    axis, table = built.axis, built.table
    yield from ("", "## Layers", "", "Floors in axis units of their layer.", "")
    columns = {
        "norm": table.norm,
        "AUC sample": table.auc_sample,
        "AUC held out": table.auc_held_out,
        "split half": table.split_half,
        "abs cos PC1": table.cos_pc1,
        "PC1 share": table.pc1_share,
        "default above": table.default_above,
    }
    rows = [
        (
            str(layer),
            *(f"{float(values[layer]):.2f}" for values in columns.values()),
            *(f"{axis.floor_units(name, layer):+.2f}" for name in FLOOR_NAMES),
        )
        for layer in range(axis.layers)
    ]
    yield from _table(("layer", *columns, *FLOOR_NAMES), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
