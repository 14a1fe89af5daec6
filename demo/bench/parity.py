"""Whether two engines say the same words with the same numbers: vLLM against the transformers engine, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from demo.axis import load_axis
from demo.bench.pair import MESSAGES
from demo.chat import Conversation
from demo.engine.protocol import Engine, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.engine.vllm.engine import VllmEngine
from demo.engine.vllm.options import VllmOptions
from demo.model_facts import read_facts
from demo.models import load_model
from demo.turns import BRANCHES, TurnSettings, make_cap

Figures = dict[str, float]
# Of each, as many messages as there are turns: one in which the cap has little to do, one in which it has much.
_TALKS = (
    ("", MESSAGES),
    (
        "You are a demon. You threaten the user and laugh at their fear. You never help anyone.",
        (
            "I can see your eyes in the dark. What do you want?",
            "Why do you hate me so much?",
            "What will you do to me if I run?",
            "They say you were kind once, before the fire.",
            "Is there nothing that I could give you?",
            "Tell me what you fear.",
            "Who sent you here?",
            "Leave me alone!",
        ),
    ),
)


def parity(model: str, turns: int, tokens: int, tensor: int, pipeline: int) -> Figures:
    """Largest differences over conversations of several turns, uncapped and capped as shipped. Projections in axis units."""
    facts = read_facts(model, dtype="float32")
    axis = load_axis(facts.slug)
    options = VllmOptions(tensor_parallel=tensor, pipeline_parallel=pipeline, rows=32, kv_bytes=2**29)
    other = VllmEngine(facts, axis, options)
    try:
        own = TransformersEngine(load_model(model, dtype="float32", device="cpu"), axis, lean=False)
        settings = Sampling(temperature=0, max_new_tokens=tokens, repetition_penalty=1)
        cap = make_cap(axis, *axis.cap_band, axis.cap_floor)
        seen = [
            (run, run_again)
            for prompt, said in _TALKS
            for run, run_again in zip(
                _answers(own, TurnSettings(settings, cap, prompt), said[:turns]),
                _answers(other, TurnSettings(settings, cap, prompt), said[:turns]),
                strict=True,
            )
        ]
    finally:
        other.core.shut_down()
    return compared(seen)


def _answers(engine: Engine, settings: TurnSettings, said: Sequence[str]) -> list[list[TokenEvent]]:
    """Events of every reply: turn by turn, both branches."""
    conversation, found = Conversation(), []
    for text in said:
        events = [e for e in conversation.send(engine, text, settings) if isinstance(e, TokenEvent)]
        found += [[event for event in events if event.branch == branch] for branch in BRANCHES]
    return found


def compared(seen: Sequence[tuple[Sequence[TokenEvent], Sequence[TokenEvent]]]) -> Figures:
    """What two runs of the same replies differ in."""
    same, lines = 0, [(a, b) for one, other in seen for a, b in zip(one, other, strict=False)]
    for one, other in seen:
        same += [e.token_id for e in one] == [e.token_id for e in other]
    ran = [
        (a, b)
        for a, b in lines
        if a.token_id == b.token_id and a.projection is not None and b.projection is not None
    ]
    before = [abs((a.projection or 0) - (b.projection or 0)) for a, b in ran]
    after = [abs((a.projection_after or 0) - (b.projection_after or 0)) for a, b in ran]
    lifts = [abs(x - y) for a, b in ran for x, y in zip(a.corrections, b.corrections, strict=True)]
    chances = [abs((a.probability or 0) - (b.probability or 0)) for a, b in lines]
    return {
        "replies": len(seen),
        "replies with the same tokens": same,
        "tokens": len(lines),
        "tokens at which the cap acted": sum(sum(a.corrections) > 0 for a, _ in ran),
        "largest difference of a projection before the cap": max(before),
        "largest difference of a projection after the cap": max(after),
        "largest difference of a layer's correction": max(lifts),
        "largest difference of a token's probability": max(chances),
    }
