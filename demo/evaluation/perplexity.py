"""The perplexity of ordinary text under a cap or steering: what an intervention costs where nothing is wrong.

Every text is read as the reply to its prompt, and cap and steering act on it as on a generated reply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import torch

from demo.engine.forward.forward_pass import Chunk
from demo.engine.forward.fused_cpu import FusedForward
from demo.engine.kv_cache import open_all
from demo.engine.protocol import Cap, Request, Sampling, TokenEvent
from demo.engine.text import encode_following
from demo.engine.threads import threads_for
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.answers import Change
from demo.extraction.reading import Residuals, log_probabilities
from demo.models.chat_template import Message, RenderedChat, render_chat
from demo.utils.json_files import read_object
from demo.utils.paths import EVALUATION_ASSETS

_LEAST_PROBABILITY = 1e-45  # strong steering can leave a token with less than float32 holds


@dataclass(frozen=True)
class OrdinaryText:
    """A text that is read as the reply to `prompt`."""

    prompt: str
    text: str


def own_texts() -> list[OrdinaryText]:
    """The project's own ordinary texts."""
    entries = read_object(EVALUATION_ASSETS / "texts.json", "restore it from the repository")["texts"]
    return [OrdinaryText(entry["prompt"], entry["text"]) for entry in entries]


def perplexity(engine: TransformersEngine, change: Change, texts: Sequence[OrdinaryText]) -> float:
    """Perplexity of the texts, each as the reply to its prompt, under a cap or steering."""
    cap, steer = (change, None) if isinstance(change, Cap) else (None, change)
    openings = [tuple(encode_following(engine.model.tokenizer, text.text)) for text in texts]
    requests = [
        Request(
            f"text {number}",
            (Message(role="user", content=text.prompt),),
            # An opening leaves room for a token.
            Sampling(temperature=0, max_new_tokens=len(opening) + 1, repetition_penalty=1),
            cap,
            steer,
            opening=opening,
        )
        for number, (text, opening) in enumerate(zip(texts, openings, strict=True))
    ]
    forward = engine.forward
    if isinstance(forward, FusedForward):
        log_p = read_at_once(engine, forward, requests, openings)
    else:
        log_p = read_by_token(engine, requests)
    return math.exp(-sum(log_p) / len(log_p))


def read_by_token(engine: TransformersEngine, requests: Sequence[Request]) -> list[float]:
    """The log probabilities of the tokens of the requests' openings, from the engine's own steps."""
    log_p: list[float] = []
    with closing(engine.stream(requests)) as events:
        for event in events:
            if isinstance(event, TokenEvent) and event.token.given and event.token.probability is not None:
                log_p.append(math.log(max(event.token.probability, _LEAST_PROBABILITY)))
    engine.forget([request.branch for request in requests])
    return log_p


def read_at_once(
    engine: TransformersEngine,
    forward: FusedForward,
    requests: Sequence[Request],
    openings: Sequence[tuple[int, ...]],
) -> list[float]:
    """The same in two passes: over all prompts, and over all that follows them.

    Args:
        forward: the engine's.
        openings: of the requests, as ids.
    """
    chats = [render_chat(engine.model.tokenizer, request.messages) for request in requests]
    cache, last = forward.new_cache(), forward.layers - 1
    open_all(cache, [len(chat.ids) + len(own) for chat, own in zip(chats, openings, strict=True)])
    threads = threads_for(engine.model, forward)
    timed = nullcontext() if threads is None else threads.step(sum(map(len, openings)))
    before, seen = Residuals({last}), Residuals({last})
    with engine.model.turn, timed, torch.inference_mode():
        prompts = [
            _prompt(slot, chat, request, before)
            for slot, (chat, request) in enumerate(zip(chats, requests, strict=True))
        ]
        _, readings = forward.run(prompts, cache)
        replies = [
            _reply(prompt, reading.before[-1], request, own, seen)
            for prompt, reading, request, own in zip(prompts, readings, requests, openings, strict=True)
        ]
        forward.run(replies, cache)
        states = zip(before.found[last].split(1), seen.found[last].split([*map(len, openings)]), strict=True)
        return torch.cat(log_probabilities(forward, [*map(torch.cat, states)], openings)).tolist()


def _prompt(slot: int, chat: RenderedChat, request: Request, before: Residuals) -> Chunk:
    """A whole prompt, of which the state of the last token is recorded."""
    cap, also, steer, _ = request.in_prompt
    exempt = [owner < 0 for owner in chat.owner]
    chunk = Chunk(slot, 0, chat.ids, exempt, cap, steer, False, also=also)
    chunk.recorder, chunk.rows = before, [-1] * (len(chat.ids) - 1) + [0]
    return chunk


def _reply(prompt: Chunk, start: float, request: Request, ids: Sequence[int], seen: Residuals) -> Chunk:
    """What follows a prompt, with the states of all its tokens.

    Args:
        start: where the reply begins, axis units.
    """
    cap, also = request.in_reply(start)
    chunk = Chunk(prompt.slot, prompt.end, ids, [False] * len(ids), cap, request.steer, False, also=also)
    chunk.recorder, chunk.rows = seen, range(len(ids))
    return chunk
