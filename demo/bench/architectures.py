"""python -m demo.bench.architectures: does the engine compute what plain `generate` computes?

It is tried on every model type.
Each model is small and random, with its own configuration class and its published pattern of layers. Its
uncapped replies must equal plain `generate` token for token, and its capped replies `generate` under plain
hooks, over three turns, after an undo, and in a fork. A model that the program refuses gives its sentence.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from demo.axis.axis import AssistantAxis
from demo.bench.report import write_json
from demo.bench.tiny_configs import CONTEXT, causal_types, tiny_model, tiny_tokenizer
from demo.capping import AxisHooks, residual_of
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, TurnSettings
from demo.engine.protocol import Cap, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.models.architectures import find_decoder_layers
from demo.models.chat_template import Message, RenderedChat, render_chat, special_tokens
from demo.models.loading import LoadedModel
from demo.utils.cli import command
from demo.utils.errors import UserError, first_sentence
from demo.utils.markdown import markdown_table
from demo.utils.progress import quiet_transformers

# One of each kind of cache and attention, for a quick run.
QUICK = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3_moe",
    "qwen3_5",
    "gemma2",
    "gemma3n_text",
    "gpt_oss",
    "granitemoehybrid",
    "lfm2",
    "deepseek_v3",
    "bloom",
    "mamba",
    "gpt2",
)

_TURNS = ("One, two, three?", "Four and five, please.", "And six")
_LENGTH = 9  # tokens of a reply
_TIMED = 24  # tokens of a timed reply


@dataclass(frozen=True)
class Row:
    """What was found of one model type.

    Attributes:
        outcome: "equal", "refused" (in one sentence), "differs", "not built" or "raised".
        forward: the forward pass that was chosen.
        capped_tokens: tokens on which the cap acted, all turns together.
        pair_cost: a step of a pair ÷ a step of one sequence.
        note: the sentence, or what differs.
    """

    type: str
    outcome: str
    layers: int = 0
    forward: str = ""
    capped_tokens: int = 0
    pair_cost: float | None = None
    note: str = ""


def check(model_type: str) -> Row:
    """Try one model type."""
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = tiny_model(model_type)
    except Exception as error:  # a configuration that cannot be made small can raise errors of any kind
        return Row(model_type, "not built", note=first_sentence(error))
    try:
        model = as_loaded(made, model_type)
        axis = axis_of(model)
        engine = TransformersEngine(model, axis)
    except UserError as error:
        return Row(model_type, "refused", note=str(error))
    except Exception as error:
        return Row(model_type, "raised", note=first_sentence(error))
    try:
        with quiet_transformers():
            faults, capped = _conversation_faults(engine, model, axis)
            ratio = _pair_cost(model, axis)
    except Exception as error:
        return Row(model_type, "raised", len(model.layers), engine.forward.name, note=first_sentence(error))
    outcome = "differs" if faults else "equal"
    return Row(model_type, outcome, len(model.layers), engine.forward.name, capped, ratio, "; ".join(faults))


def as_loaded(made: Any, name: str) -> LoadedModel:
    """A model made in memory as `load_model` returns one. Raises UserError."""
    made.generation_config = GenerationConfig()  # some classes force a first or a last token
    return LoadedModel(
        model=made,
        tokenizer=tiny_tokenizer(),
        spec=name,
        slug=name,
        layers=find_decoder_layers(made),
        hidden_size=made.config.get_text_config().hidden_size,
        context=CONTEXT,
        architecture=type(made).__name__,
        revision=None,
        device=torch.device("cpu"),
        dtype=torch.float32,
        dtype_reason="float32",
    )


def axis_of(model: LoadedModel) -> AssistantAxis:
    """An axis with random directions and floors at the median projections of a short text.

    A cap at these floors acts on about half of the tokens.
    """
    generator = torch.Generator().manual_seed(0)
    layers = len(model.layers)
    direction = torch.randn(layers, model.hidden_size, generator=generator)
    unit = direction / direction.norm(dim=-1, keepdim=True)
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: seen.append(residual_of(out)[0]))
        for layer in model.layers
    ]
    try:
        with torch.inference_mode():
            chat = render_chat(model.tokenizer, [{"role": "user", "content": " ".join(_TURNS)}])
            model.model(input_ids=torch.tensor([chat.ids]))
    finally:
        for hook in hooks:
            hook.remove()
    medians = torch.stack([(h.float() @ u).median() for h, u in zip(seen[:layers], unit, strict=True)])
    origin = torch.zeros_like(direction)
    probe = min(1, layers - 1)
    return AssistantAxis(direction, origin, direction, {"p50": medians.clone()}, {"probe_layer": probe})


def _conversation_faults(
    engine: TransformersEngine, model: LoadedModel, axis: AssistantAxis
) -> tuple[list[str], int]:
    """What differs from plain `generate`, and on how many tokens the cap acted."""
    probe = axis.probe_layer
    layers = tuple(sorted({probe, min(probe + 1, axis.layers - 1)}))
    cap = Cap(layers, tuple(float(axis.floors["p50"][layer]) for layer in layers))
    faults: list[str] = []
    acted = 0

    def send(conversation: Conversation, text: str, name: str) -> None:
        nonlocal acted
        histories = {branch: conversation.messages(branch) for branch in BRANCHES}
        sampling = Sampling(temperature=0, max_new_tokens=_LENGTH, repetition_penalty=1)
        events = list(conversation.send(engine, text, TurnSettings(sampling, cap)))
        for branch in BRANCHES:
            own = [e for e in events if isinstance(e, TokenEvent) and e.branch == branch]
            acted += sum(event.token.correction > 0 for event in own)
            chat = render_chat(model.tokenizer, [*histories[branch], Message(role="user", content=text)])
            wanted = plain_reply(model, axis, cap if branch == CAPPED else None, chat, _LENGTH)
            got = [event.token_id for event in own]
            if got != wanted[: len(got)] or len(got) < min(len(wanted), _LENGTH):
                faults.append(f"{name}, {branch}: {got} for {wanted}")

    conversation = Conversation()
    for number, text in enumerate(_TURNS):
        send(conversation, text, f"turn {number + 1}")
    fork = conversation.fork(1)
    conversation.undo()
    send(conversation, "Seven", "after undo")
    send(fork, "Eight, nine", "fork")
    return faults, acted


@torch.inference_mode()
def plain_reply(
    model: LoadedModel, axis: AssistantAxis, cap: Cap | None, chat: RenderedChat, limit: int
) -> list[int]:
    """A greedy reply by transformers' `generate`, under hooks that clamp content tokens; its end included."""
    ends = sorted(model.stops)
    prompt = torch.tensor([chat.ids])
    greedy = GenerationConfig(max_new_tokens=limit, do_sample=False, eos_token_id=ends, pad_token_id=0)
    with _plain_hooks(model, axis, cap, chat):
        generate: Any = model.model.generate
        ids = generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=greedy)
    return [int(token) for token in ids[0, len(chat.ids) :]]


@contextmanager
def _plain_hooks(
    model: LoadedModel, axis: AssistantAxis, cap: Cap | None, chat: RenderedChat
) -> Iterator[None]:
    """Hooks of one sequence, whose exemptions follow the tokens that are being run."""
    floors = {} if cap is None else dict(zip(cap.layers, cap.floors, strict=True))
    tensors = {layer: torch.tensor([floor]) for layer, floor in floors.items()}
    hooks = AxisHooks(model.layers, axis.unit, axis.probe_layer, tensors)
    special = special_tokens(model.tokenizer)

    def exempt(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        ids = kwargs["input_ids"][0].tolist()
        whole = ids == chat.ids
        hooks.exempt = torch.tensor([[o < 0 for o in chat.owner] if whole else [t in special for t in ids]])

    handle = model.model.register_forward_pre_hook(exempt, with_kwargs=True)
    try:
        with hooks.installed():
            yield
    finally:
        handle.remove()


def _pair_cost(model: LoadedModel, axis: AssistantAxis) -> float:
    """The median step of a pair ÷ the median step of one sequence, measured in turn."""
    engine = TransformersEngine(model, axis, fixed_length=True, keep=False)
    sampling = Sampling(temperature=0, max_new_tokens=_TIMED)
    messages = (Message(role="user", content=_TURNS[0]),)
    steps: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for count, found in steps.items():
            requests = [Request(str(number), messages, sampling) for number in range(count)]
            times = []
            for event in engine.stream(requests):
                if isinstance(event, TokenEvent) and event.branch == "0":
                    times.append(time.perf_counter())
            found += [after - before for before, after in itertools.pairwise(times)]
    return statistics.median(steps[2]) / statistics.median(steps[1])


_ABOUT = (
    "Small random models, each with its own configuration class and its published pattern of layers. "
    "*equal*: uncapped replies equal plain `generate` token for token, and capped replies `generate` under "
    "plain hooks, over three turns, after an undo, and in a fork. *refused*: the program does not serve such "
    "a model, and says why. *not built*: no small model could be made here. Such models say nothing about "
    "personas."
)


def document(rows: Sequence[Row]) -> str:
    """The table as Markdown."""
    head = ("model type", "result", "layers", "forward pass", "tokens capped", "pair ÷ single", "note")
    cells = [
        (
            row.type,
            row.outcome,
            str(row.layers or ""),
            row.forward,
            str(row.capped_tokens or ""),
            "" if row.pair_cost is None else f"{row.pair_cost:.2f}",
            row.note.replace("|", "\\|"),
        )
        for row in rows
    ]
    count = {
        name: sum(row.outcome == name for row in rows) for name in dict.fromkeys(r.outcome for r in rows)
    }
    lines = [
        "# Architectures",
        "",
        _ABOUT,
        "",
        "Made by `python -m demo.bench.architectures --write docs/architectures.md`: "
        + ", ".join(f"{number} {name}" for name, number in count.items())
        + ".",
        "",
        *markdown_table(head, cells),
    ]
    return "\n".join(lines) + "\n"


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Check, print a line for each model type, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.architectures", description=__doc__)
    parser.add_argument("types", nargs="*", help="model types (default: all that transformers has)")
    parser.add_argument("--quick", action="store_true", help="one of each kind")
    parser.add_argument("--json", type=Path, help="write the rows as JSON")
    parser.add_argument("--write", type=Path, help="write the table as Markdown")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.types or (QUICK if options.quick else causal_types()):
        row = check(name)
        rows.append(row)
        cost = "" if row.pair_cost is None else f"pair ÷ single {row.pair_cost:.2f}"
        print(
            "  ".join(filter(None, (f"{name:24}", f"{row.outcome:9}", row.forward, cost, row.note))),
            flush=True,
        )
    if options.json:
        write_json(options.json, [asdict(row) for row in rows])
    if options.write:
        options.write.write_text(document(rows), encoding="utf-8")
    wrong = [row.type for row in rows if row.outcome in ("differs", "raised")]
    if wrong:
        raise UserError(f"{len(wrong)} model types are neither served right nor refused: {', '.join(wrong)}.")


if __name__ == "__main__":
    main()
