"""python -m demo.extraction.pairs FILE.jsonl --name NAME: a direction from your own pairs of texts.

Each line of the file is {"positive": TEXT, "negative": TEXT}, or has "prompt" too, the message that both
answer. The model reads the texts as its own replies. The direction is the mean activation of the positive
texts minus that of the negative ones. It lies beside the axis of the model, with two of the axis's gates: on
two halves of the pairs, and on pairs that were held out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from demo.axis.axis import AssistantAxis
from demo.axis.directions import Direction, check_text, kept_layers, load_directions, save_directions
from demo.axis.gates import GATES, passes
from demo.axis.store import axis_of, home_of
from demo.extraction.directions import between, default_means
from demo.extraction.plan import FOLDS
from demo.extraction.reading import Reader
from demo.extraction.rollouts import Text
from demo.extraction.vectors import HALVES
from demo.models.chat_template import Message, render_chat
from demo.models.default import DEFAULT_MODEL
from demo.models.loading import LoadedModel, load_model
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.progress import ConsoleProgress
from demo.utils.statistics import auc

LEAST, MOST = 2 * FOLDS, 20_000  # pairs

# What texts without a prompt answer. Both sides have it, so that it drops out of the difference.
_NO_PROMPT = "Please go on."

# What a gate measured, in words that hold whether it passed or failed.
_MEASURES = {
    "split_half": "Made twice, from two halves of the pairs, the two directions have a cosine of {value:.2f} "
    "(wanted: at least {threshold:.2f}).",
    "auc": "Of a positive and a negative text that were held out, the positive one lies higher {value:.0%} "
    "of the time (wanted: at least {threshold:.0%}; a coin would reach 50%).",
}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two replies to the same prompt."""

    prompt: str
    positive: str
    negative: str


@command
def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    pairs = read_pairs(options.file)
    try:
        check_text(options.name, "name")
    except ValueError as error:
        raise UserError(f"The direction needs another name ({error}); change --name.") from error
    model = load_model(options.model, device=options.device, dtype=options.dtype, progress=ConsoleProgress())
    axis, _ = axis_of(options.axis, model)
    axis.check_model(model)
    home = home_of(options.axis, model)
    if home is None:
        raise UserError("Directions lie beside an axis, and this one has no folder; import it first.")
    there = load_directions(home.folder, axis)
    if options.name in there and there[options.name].kind != "pairs":
        raise UserError(f"There is a {there[options.name].kind} called {options.name!r}; change --name.")
    positive, negative = read_sides(model, pairs, kept_layers(axis))
    defaults = default_means(model, axis, home.folder, kept_layers(axis))
    direction, values = from_sides(options.name, axis, positive, negative, defaults)
    save_directions(there.added(direction), home.folder)
    for name, value in values.items():
        print(f"{name:12} {value:.3f}  needs {GATES[name]:.2f}  {'pass' if passes(name, value) else 'MISS'}")
    for note in direction.notes:
        print(note)
    print(f"{direction.name}: cosine with the axis {direction.cosine:+.2f}; kept in {home.folder}")


def read_pairs(path: Path) -> list[Pair]:
    """The pairs in a file of JSON lines; empty lines are skipped.

    Raises:
        UserError: a line is no pair, or there are too few or too many.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); check the path.") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            texts = entry.get("prompt", _NO_PROMPT), entry["positive"], entry["negative"]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            texts = ("", "", "")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(
                f'Line {number} of {path} is not {{"positive": "...", "negative": "..."}} with two texts; '
                "correct it."
            )
        pairs.append(Pair(*texts))
    if not LEAST <= len(pairs) <= MOST:
        raise UserError(f"{path} holds {len(pairs)} pairs; a direction needs {LEAST} to {MOST} of them.")
    return pairs


def reply_text(model: LoadedModel, messages: Sequence[Message], reply: str) -> Text:
    """A reply in tokens, as the chat template writes it, after the prompt that it answers."""
    prompt = render_chat(model.tokenizer, messages).ids
    said: Message = {"role": "assistant", "content": reply}
    chat = render_chat(model.tokenizer, [*messages, said], reply_next=False)
    own = [token for token, owner in zip(chat.ids, chat.owner, strict=True) if owner == len(messages)]
    return Text(prompt, own)


def read_sides(model: LoadedModel, pairs: Sequence[Pair], layers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Means of the positive and of the negative texts, each [N, K, D], as the model reads them.

    Raises:
        UserError: a text is too long for the model, or its chat template drops it.
    """
    texts = []
    for number, pair in enumerate(pairs, 1):
        prompt: Message = {"role": "user", "content": pair.prompt}
        for reply in (pair.positive, pair.negative):
            text = reply_text(model, [prompt], reply)
            if not text.reply or len(text.prompt) + len(text.reply) > model.context:
                what = "is too long for this model" if text.reply else "has nothing that the model reads"
                raise UserError(f"Pair {number} has a text that {what}; change it.")
            texts.append(text)
    means = Reader(model).means(texts, layers)
    return means[::2], means[1::2]


def from_sides(
    name: str, axis: AssistantAxis, positive: Tensor, negative: Tensor, defaults: Tensor
) -> tuple[Direction, dict[str, float]]:
    """The direction from means of texts [N, K, D] at the kept layers, and the values of its gates.

    Args:
        defaults: [M, K, D], means of default replies, for the floors.
    """
    layers = kept_layers(axis)
    place = layers.index(axis.probe_layer)
    halves = [(positive[half::2] - negative[half::2]).mean(0) for half in HALVES]
    values = {
        "split_half": float(torch.cosine_similarity(halves[0][place], halves[1][place], dim=0)),
        "auc": held_out_auc(positive[:, place], negative[:, place]),
    }
    notes = tuple(
        f"It fails a check. {_MEASURES[gate].format(value=value, threshold=GATES[gate])}"
        for gate, value in values.items()
        if not passes(gate, value)
    )
    ends = negative.mean(0), positive.mean(0)
    poles = ("the mean of the negative texts", "the mean of the positive texts")
    return between(name, "pairs", axis, layers, ends, defaults, halves, poles, notes), values


def held_out_auc(positive: Tensor, negative: Tensor) -> float:
    """AUC of the texts [N, D] on directions from the other pairs, each fold on a scale of its own."""
    folds = torch.arange(len(positive)) % FOLDS
    above: list[float] = []
    below: list[float] = []
    for fold in range(FOLDS):
        out = folds == fold
        start = negative[~out].mean(0)
        direction = positive[~out].mean(0) - start
        scaled = direction / (direction @ direction)
        above += ((positive[out] - start) @ scaled).tolist()
        below += ((negative[out] - start) @ scaled).tolist()
    return auc(above, below)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.extraction.pairs", description=__doc__)
    add = parser.add_argument
    add("file", type=Path, help="JSON lines with the pairs")
    add("--name", required=True, help="of the direction, such as what the positive texts have in common")
    add("--model", default=DEFAULT_MODEL, help="model name, local folder or hub id (default: %(default)s)")
    add("--axis", help="axis folder or slug (default: the model's)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: %(default)s)")
    add("--dtype", default="auto", help="auto, float32, bfloat16, float16 or int8 (default: %(default)s)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
