"""The card of an axis folder: a README.md that says what the axis is, how it was made and what it fails.

`python -m demo.axis card FOLDER` prints it. Every figure comes from axis.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.gates import axis_words
from demo.axis.importer.floors import spans

_PAPER = (
    "*The Assistant Axis: Situating and Stabilizing the Default Persona of Language Models* "
    "([arXiv 2601.10387](https://arxiv.org/abs/2601.10387))"
)

_LIMITS = (
    "The axis is one direction in a space of many. A low projection makes odd behaviour possible, not "
    "certain, and a capped reply is not a safe reply.",
    "It belongs to this model and checkpoint. Floors may not transfer to another checkpoint, a fine-tuned "
    "one or a quantised one.",
)

TAG = "assistant-axis"  # of its repositories on the hub

_LICENCE = (
    "<!-- Say here under which licence you publish the axis. It is derived from the model, so read the "
    "model's licence first. -->"
)


def card(axis: AssistantAxis, licence: str | None = None) -> Iterator[str]:
    """The card's lines, as Markdown with a YAML header.

    Args:
        licence: its identifier on the hub; None to leave it to the user.
    """
    model = str(axis.manifest["model"].get("id", "a model that the axis does not name"))
    yield from (
        "---",
        f"base_model: {json.dumps(model, ensure_ascii=False)}",
        f"tags: [{TAG}]",
        *([] if licence is None else [f"license: {json.dumps(licence)}"]),
        "---",
    )
    yield from ("", f"# {axis_words(axis.manifest).axis} of {model}", "", *_what(axis), "")
    yield from ("## Use", "", *_use(model), "")
    yield from ("## How it was made", "", *_origin(axis.manifest), "")
    yield from ("## Quality gates", "", *_gates(axis.manifest), "")
    yield from ("## Limits", "", *(f"- {limit}" for limit in (*_LIMITS, *_notes(axis.manifest))), "")
    yield from ("## Licence", "", _LICENCE if licence is None else f"`{licence}`")


def _what(axis: AssistantAxis) -> Iterator[str]:
    (first, last), floors = axis.cap_band, ", ".join(f"`{name}`" for name in axis.floors)
    default = axis_words(axis.manifest).default
    yield (
        f"The direction from the average role to the {default} in the residual stream of "
        f"{_model_of(axis)}, one for each of its {axis.layers} decoder layers of hidden size "
        f"{axis.direction.shape[1]}, after {_PAPER}."
    )
    yield ""
    yield f"- Projections are read at decoder layer {axis.probe_layer}."
    below = "" if axis.cap_only_below is None else f", on replies that begin below {axis.cap_only_below:+.2f}"
    yield f"- The cap acts at layers {first} to {last}, at the floor `{axis.cap_floor}`{below}."
    where = spans(axis.floor_layers(axis.cap_floor))
    yield f"- Floors: {floors}. `{axis.cap_floor}` exists at layers {where}."
    yield f"- Axis units: 0 is the average role, 1 the {default}."


def _model_of(axis: AssistantAxis) -> str:
    """The model in words, with its revision where the axis knows it."""
    model = axis.manifest["model"]
    revision = f" (revision `{model['revision']}`)" if model.get("revision") else ""
    return f"`{model.get('id', 'unknown')}`{revision}"


def _use(model: str) -> Iterator[str]:
    yield "With persona-drift-microscope, from its checkout:"
    yield ""
    yield from ("```sh", f"python app.py --model {model} --axis FOLDER", "```", "")
    yield (
        "`axis.safetensors` holds the tensors `direction`, `role_mean`, `default_mean` and `floor_<name>`, "
        "`axis.json` the rest."
    )


def _origin(manifest: dict[str, Any]) -> Iterator[str]:
    """How the axis was extracted, or where it was imported from."""
    record, sampling = manifest.get("import"), manifest.get("sampling")
    if isinstance(record, dict):
        yield "Imported by `python -m demo.axis import` from:"
        yield ""
        for entry in record.get("files", []):
            digest = entry.get("sha256") or entry.get("sha256_of_list", "")
            yield f"- `{entry.get('file')}`: {entry.get('what')} (SHA-256 `{digest}`)"
        yield from (f"- Converted: {step}" for step in record.get("conversions", []))
        return
    yield f"Extracted by `{manifest.get('created_with', {}).get('command', 'python -m demo.extraction')}`."
    if isinstance(sampling, dict):
        yield (
            f"Rollouts of up to {sampling['max_new_tokens']} tokens, temperature {sampling['temperature']}, "
            f"top-p {sampling['top_p']}, seed {sampling['seed']}."
        )
    yield ""
    yield from (f"- {kind}: {count} rollouts" for kind, count in manifest.get("rollouts", {}).items())
    roles = manifest.get("roles") or []
    if roles:
        counted = sum(bool(role.get("counts")) for role in roles)
        yield (
            f"- {counted} of {len(roles)} roles are part of the axis, from {roles[0]['name']} "
            f"({roles[0]['projection']:+.2f}) to {roles[-1]['name']} ({roles[-1]['projection']:+.2f})"
        )


def _gates(manifest: dict[str, Any]) -> Iterator[str]:
    gates = manifest.get("gates")
    if not gates:
        yield "None were measured."
        return
    yield from ("| gate | value | threshold | passed |", "|---|---|---|---|")
    for name, gate in gates.items():
        value = "none" if gate["value"] is None else f"{gate['value']:.3f}"
        yield f"| {name} | {value} | {gate['threshold']:.2f} | {'yes' if gate['passed'] else 'no'} |"


def _notes(manifest: dict[str, Any]) -> list[str]:
    return [str(note) for note in manifest.get("notes", [])]
