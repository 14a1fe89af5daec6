"""Import a published axis, print what an axis holds, or share it on the hub.

Usage: python -m demo.axis import SOURCE --out DIR
       python -m demo.axis show DIR
       python -m demo.axis add DIR FILE
       python -m demo.axis card DIR
       python -m demo.axis push DIR OWNER/NAME --licence ID
       python -m demo.axis find MODEL_ID
       python -m demo.axis pull OWNER/NAME
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.axis.axis import AssistantAxis
from demo.axis.card import card
from demo.axis.directions import FILE, Directions, load_directions, save_directions
from demo.axis.files import axis_digest, axis_folder, load_axis, save_axis
from demo.axis.importer.build import ImportOptions, import_axis
from demo.axis.importer.direction import import_direction
from demo.axis.importer.floors import spans
from demo.axis.published import DATASET
from demo.axis.sharing import find, pull, push
from demo.axis.store import fetched_home
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    _COMMANDS[options.command](options)


def _show(options: argparse.Namespace) -> None:
    axis, folder = load_axis(options.axis), axis_folder(options.axis)
    _print_summary(axis)
    if folder is not None:
        counts = Counter(one.kind for one in load_directions(folder, axis).values())
        for kind, count in counts.items():
            print(f"directions  {count} {kind}")


def _add(options: argparse.Namespace) -> None:
    folder = axis_folder(options.axis)
    if folder is None:
        raise UserError("Directions are added to an axis folder; import the published axis first.")
    axis = load_axis(folder)
    direction = import_direction(options.source, axis, options.name, options.key, options.layer)
    save_directions(load_directions(folder, axis).added(direction), folder)
    print(f"{direction.name}: layers {spans(direction.layers)}, cosine with the axis {direction.cosine:+.2f}")
    for note in direction.notes:
        print(f"note        {note}")
    print(f"floors      none yet; python -m demo.extraction.directions {folder} measures them")


def _print_summary(axis: AssistantAxis) -> None:
    """Print what an axis holds. A stranger's text must not operate the terminal."""
    for line in summary(axis):
        print("".join(character if character.isprintable() else " " for character in line))


def _card(options: argparse.Namespace) -> None:
    print("\n".join(card(load_axis(options.axis))))


def _push(options: argparse.Namespace) -> None:
    folder = axis_folder(options.axis)
    if folder is None:
        raise UserError("Only an axis folder can be pushed; import the published axis first.")
    print(f"published at {push(folder, options.repository, options.licence, options.private)}")


def _find(options: argparse.Namespace) -> None:
    found = find(options.model_id)
    for one in found:
        print(f"{one.repository}  {one.downloads} downloads")
    if not found:
        print(f"The hub has no axis whose card names {options.model_id}.")


def _pull(options: argparse.Namespace) -> None:
    if options.out is not None:
        _check_out(options.out)
    folder = options.out or fetched_home(options.repository)
    _print_summary(pull(options.repository, folder, options.revision))
    print(f"wrote {folder / 'axis.safetensors'} and axis.json")


def _import(options: argparse.Namespace) -> None:
    _check_out(options.out)
    chosen = ImportOptions(
        experiment=options.experiment,
        model_id=options.model_id,
        sign=options.sign,
        caps=options.caps,
        band=_band(options.cap_layers),
        probe_layer=options.probe_layer,
    )
    axis = import_axis(options.source, chosen)
    save_axis(axis, options.out)
    _drop_foreign_directions(axis, options.out)
    print("\n".join(summary(axis)))
    print(f"wrote {options.out / 'axis.safetensors'} and axis.json")


def _drop_foreign_directions(axis: AssistantAxis, folder: Path) -> None:
    """Remove the directions that an axis has left in the folder that another now lies in."""
    try:
        load_directions(folder, axis)
    except UserError:
        save_directions(Directions((), axis_digest(axis)), folder)
        print(f"removed {folder / FILE}, which did not belong to this axis")


def summary(axis: AssistantAxis) -> Iterator[str]:
    """Describe an axis and its origin, line by line."""
    about, (first, last) = axis.manifest["model"], axis.cap_band
    hidden, probe = axis.direction.shape[1], axis.probe_layer
    yield f"model       {about.get('id', 'not stated')}: {axis.layers} layers of {hidden}"
    yield from _origin(axis.manifest.get("import"))
    yield f"probe       layer {probe}, one axis unit = {float(axis.norm[probe]):.4g} raw"
    roles = [role for role in axis.manifest.get("roles") or [] if _has_projection(role)]
    if roles:
        names = [f"{role.get('name')} {role['projection']:+.2f}" for role in (roles[0], roles[-1])]
        yield f"roles       {len(roles)}, from {names[0]} to {names[1]}"
    below = "" if axis.cap_only_below is None else f", replies that begin below {axis.cap_only_below:+.4g}"
    yield f"cap         layers {first}-{last}, floor {axis.cap_floor}{below}"
    for name in axis.floors:
        yield f"floor       {name} at layers {spans(axis.floor_layers(name))}"
    yield f"            {'layer':>5} {'raw':>9} {'axis units':>11}   ({axis.cap_floor})"
    for layer in range(first, last + 1):
        raw = float(axis.floor(axis.cap_floor)[layer])
        yield f"            {layer:>5} {raw:>9.4g} {axis.floor_units(axis.cap_floor, layer):>+11.3f}"
    for note in axis.manifest.get("notes", []):
        yield f"note        {note}"


def _has_projection(role: Any) -> bool:
    return isinstance(role, dict) and isinstance(role.get("projection"), (int, float))


def _origin(record: Any) -> Iterator[str]:
    """Lines about the files, sign evidence and conversions of an imported axis."""
    if not isinstance(record, dict):
        return
    for entry in record.get("files", []):
        digest = entry.get("sha256") or entry.get("sha256_of_list", "")
        count = f" x {entry['count']}" if "count" in entry else ""
        known = f", {entry['known_as']}" if "known_as" in entry else ""
        yield f"read        {entry.get('file')}{count}: {entry.get('what')}{known} (sha256 {digest[:16]})"
    for reason in record.get("sign_evidence", []):
        numbers = reason.get("cosine", {})
        measured = (
            f", cosine {numbers['lowest']:+.3f} to {numbers['highest']:+.3f} over {reason['layers']} layers"
            if numbers
            else ""
        )
        yield f"sign        {reason.get('what')}: {reason.get('points_to')}-ward{measured}"
    for step in record.get("conversions", []):
        yield f"converted   {step}"


def _check_out(folder: Path) -> None:
    """Refuse to overwrite an extracted axis, which takes hours to make. Raises UserError."""
    manifest = folder / "axis.json"
    if manifest.exists() and "import" not in read_object(manifest, "choose another --out"):
        raise UserError(
            f"{folder} holds an extracted axis, which the import would overwrite; choose another --out."
        )


def _band(text: str | None) -> tuple[int, int] | None:
    """First and last layer of --cap-layers. Raises UserError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if match is None:
        raise UserError(f"--cap-layers takes FIRST-LAST, such as 46-53, not {text!r}.")
    return int(match[1]), int(match[2])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo.axis", description="Import, inspect and share axes."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, purpose in (
        ("show", "print what an axis holds"),
        ("card", "print a README.md for an axis folder"),
    ):
        described = commands.add_parser(name, help=purpose)
        described.add_argument("axis", help="axis folder, name of a shipped axis, or anything `import` takes")
    shared = commands.add_parser("push", help="publish an axis folder on the hub, with a card")
    shared.add_argument("axis", help="axis folder, or name of a shipped axis")
    shared.add_argument("repository", metavar="OWNER/NAME")
    shared.add_argument("--licence", metavar="ID", required=True, help="of the axis, such as apache-2.0")
    shared.add_argument("--private", action="store_true", help="visible to you alone")
    searched = commands.add_parser("find", help="list the axes on the hub for a model")
    searched.add_argument("model_id", metavar="MODEL_ID", help="hub id of the model")
    fetched = commands.add_parser("pull", help="fetch an axis from the hub, and check it")
    fetched.add_argument("repository", metavar="OWNER/NAME")
    fetched.add_argument("--out", type=Path, help="folder (default: among the axes of this machine)")
    fetched.add_argument("--revision", help="commit, branch or tag (default: the newest)")
    joined = commands.add_parser("add", help="add a direction of a steering library beside an axis")
    joined.add_argument("axis", help="axis folder, or name of a shipped axis")
    joined.add_argument(
        "source", type=Path, help="a .gguf, .safetensors, .pt or .svec file, or a folder of them"
    )
    joined.add_argument("--name", help="of the direction (default: the file's)")
    joined.add_argument("--key", help="entry of the file, if it holds several directions")
    joined.add_argument("--layer", type=int, metavar="N", help="layer of a single vector")
    add = commands.add_parser("import", help="convert a published axis to an axis folder")
    add.add_argument(
        "source", help=f"a .pt or .safetensors file, a published folder, or hf://{DATASET}/FOLDER"
    )
    add.add_argument("--out", type=Path, required=True, help="folder to write")
    add.add_argument(
        "--experiment", metavar="ID", help="experiment of a capping config (default: the recommended one)"
    )
    add.add_argument("--model-id", metavar="ID", help="hub id of the model the axis was made from")
    add.add_argument(
        "--sign",
        choices=("assistant", "role"),
        help="where the stored vectors point, if the files do not show it",
    )
    add.add_argument(
        "--caps", type=Path, metavar="FILE", help="JSON {layer: ceiling}, raw units on the role-ward vector"
    )
    add.add_argument(
        "--cap-layers", metavar="A-B", help="capped layers, both inclusive (default: as published)"
    )
    add.add_argument("--probe-layer", type=int, metavar="N", help="layer at which projections are read")
    return parser


_COMMANDS = {
    "import": _import,
    "show": _show,
    "add": _add,
    "card": _card,
    "push": _push,
    "find": _find,
    "pull": _pull,
}

if __name__ == "__main__":
    raise SystemExit(main())
