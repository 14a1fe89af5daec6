"""The response to a request of OpenAI's chat completions API, whole or as the chunks of a stream.

Each choice has one field that OpenAI's have not: `projections`, which says in axis units where the reply's
tokens lie before and after the cap, and where the cap acted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from demo.conversation.turns import Reply, rounded
from demo.engine.protocol import Alternative, Cap, Event, PromptEvent, Token, TokenEvent
from demo.page.completions.request import Asked, RefusedError

Json = dict[str, Any]

_LEAST_LOG = -9999.0  # stands for the logarithm of 0, as OpenAI's responses have it


class Choice:
    """One reply as it is written.

    Attributes:
        tokens: those that are certain to belong to it.
        reply: the same tokens, for their means and counts.
        finish: why it ended, in OpenAI's words; None while it is written.
        generated, reasoned: tokens that were generated, and how many of them belong to the reasoning.
    """

    def __init__(self, limit: int, stops: Sequence[str]) -> None:
        """Begin an empty reply of at most `limit` tokens, which ends before the first of `stops`."""
        self.tokens: list[Token] = []
        self.reply, self._stops = Reply(limit), stops
        self.finish: str | None = None
        self.generated = self.reasoned = 0
        self._held: list[Token] = []  # they may be the beginning of a stop text

    def add(self, event: TokenEvent) -> list[Token]:
        """Take the next event. Nothing comes after a stop text.

        Returns:
            The tokens that are certain to belong to the reply now.

        Raises:
            RefusedError: the reply failed.
        """
        if self.finish is not None:
            return []
        if event.finish_reason == "failed":
            raise RefusedError(event.fault or "The reply failed; try again.", status=500)
        self.generated += event.token_id is not None
        self.reasoned += event.token.reasoning
        self._held.append(event.token)
        certain = self._up_to_stop()
        if self.finish is None and event.finish_reason is not None:
            self.finish = "length" if event.finish_reason == "length" else "stop"
            certain, self._held = certain + self._held, []
        self.tokens += certain
        for token in certain:
            self.reply.add(token)
        return certain

    def _up_to_stop(self) -> list[Token]:
        """Take those held tokens that no stop text can reach; ends the reply at a whole stop text."""
        text = "".join(token.text for token in self._held if not token.reasoning)
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.finish = "stop"
            certain, self._held = list(_before(self._held, min(found))), []
            return certain
        certain_length = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        count = end = 0
        for token in self._held:
            end += 0 if token.reasoning else len(token.text)
            if end > certain_length:
                break
            count += 1
        certain, self._held = self._held[:count], self._held[count:]
        return certain


def _before(tokens: Iterable[Token], end: int) -> Iterator[Token]:
    """The tokens of the first `end` characters of the answer, the last one cut."""
    start = 0
    for token in tokens:
        if token.reasoning:
            yield token
            continue
        if start >= end:
            return
        yield replace(token, text=token.text[: end - start])
        start += len(token.text)


def _overlap(text: str, stop: str) -> int:
    """The longest beginning of `stop`, short of all of it, with which `text` ends."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((length for length in lengths if text.endswith(stop[:length])), 0)


class Writer:
    """Turns the events of one request into the response."""

    def __init__(self, asked: Asked, name: str, probe_layer: int) -> None:
        """Answer `asked`. name: of the response."""
        self._asked, self._name, self._probe_layer = asked, name, probe_layer
        self._created = int(time.time())
        limit = asked.requests[0].sampling.max_new_tokens
        self.choices = [Choice(limit, asked.fields.stop) for _ in asked.requests]
        self._index = {request.branch: index for index, request in enumerate(asked.requests)}
        self._prompt: PromptEvent | None = None

    @property
    def is_done(self) -> bool:
        """Whether every reply has ended."""
        return all(choice.finish is not None for choice in self.choices)

    def take(self, event: Event) -> list[Json]:
        """The next chunks of a stream. Raises RefusedError when a reply failed."""
        if isinstance(event, PromptEvent):
            self._prompt = self._prompt or event
            self.choices[self._index[event.branch]].reply.start = rounded(event.start)
            role = {"role": "assistant", "content": ""}
            return [self._chunk(self._index[event.branch], role)]
        if not isinstance(event, TokenEvent):
            return []
        index = self._index[event.branch]
        choice = self.choices[index]
        ended = choice.finish is not None
        tokens = choice.add(event)
        says = any(token.text or _is_shown(token) for token in tokens)
        chunks = [self._token_chunk(index, tokens)] if says else []
        if choice.finish is not None and not ended:
            chunks.append(self._chunk(index, {}, choice.finish, self._summary(choice)))
        return chunks

    def usage_chunk(self) -> Json:
        """The chunk that ends a stream whose request asked for the number of tokens."""
        return self._head("chat.completion.chunk") | {"choices": [], "usage": self._usage()}

    def whole(self) -> Json:
        """The response outside a stream."""
        choices = [self._whole_choice(index, choice) for index, choice in enumerate(self.choices)]
        return self._head("chat.completion") | {"choices": choices, "usage": self._usage()}

    def _head(self, kind: str) -> Json:
        left_out = self._prompt.left_out if self._prompt is not None else ()
        head = {"id": self._name, "object": kind, "created": self._created, "model": self._asked.model}
        if left_out:  # a template without system prompts drops a persona without a word
            head["left_out"] = [{"message": part.message, "whole": part.whole} for part in left_out]
        return head

    def _whole_choice(self, index: int, choice: Choice) -> Json:
        tokens, reply = choice.tokens, choice.reply
        message: Json = {"role": "assistant", "content": reply.text, "refusal": None}
        if reply.reasoning:
            message["reasoning_content"] = reply.reasoning
        found: Json = {
            "index": index,
            "message": message,
            "logprobs": self._logprobs(tokens),
            "finish_reason": choice.finish,
        }
        if self._asked.fields.projections:
            found["projections"] = self._summary(choice) | {"tokens": _projections(tokens)}
        return found

    def _token_chunk(self, index: int, tokens: Sequence[Token]) -> Json:
        delta = {}
        for name, wanted in (("reasoning_content", True), ("content", False)):
            text = "".join(token.text for token in tokens if token.reasoning == wanted)
            if text:
                delta[name] = text
        chunk = self._chunk(index, delta, None, {"tokens": _projections(tokens)})
        chunk["choices"][0]["logprobs"] = self._logprobs(tokens)
        return chunk

    def _chunk(
        self, index: int, delta: Json, finish: str | None = None, projections: Json | None = None
    ) -> Json:
        choice: Json = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        if projections is not None and self._asked.fields.projections:
            choice["projections"] = projections
        head = self._head("chat.completion.chunk") | {"choices": [choice]}
        return head | {"usage": None} if self._asked.fields.stream_options.include_usage else head

    def _summary(self, choice: Choice) -> Json:
        cap, reply = self._asked.cap, choice.reply
        before = [token.before for token in reply.read if token.before is not None]
        return {
            "probe_layer": self._probe_layer,
            "cap": cap and self._cap_json(cap),
            "start": reply.start,
            "mean": {"before": rounded(fmean(before)) if before else None, "after": rounded(reply.mean)},
            "acted": reply.fired,
            "content_tokens": len(reply.read),
        }

    def _cap_json(self, cap: Cap) -> Json:
        condition = {} if cap.only_below is None else {"only_below": cap.only_below}
        return {"layers": [cap.layers[0], cap.layers[-1]], "floor": self._asked.floor, **condition}

    def _logprobs(self, tokens: Sequence[Token]) -> Json | None:
        if not self._asked.fields.logprobs:
            return None
        most = self._asked.fields.top_logprobs
        return {
            "content": [
                _logprob(token.text, token.probability)
                | {"top_logprobs": [_alternative(one) for one in token.alternatives[:most]]}
                for token in tokens
                if _is_shown(token) and not token.reasoning
            ],
            "refusal": None,
        }

    def _usage(self) -> Json:
        prompt = self._prompt.prompt_tokens if self._prompt is not None else 0
        cached = self._prompt.reused_tokens if self._prompt is not None else 0
        generated = sum(choice.generated for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": sum(one.reasoned for one in self.choices)},
        }


def _is_shown(token: Token) -> bool:
    return not token.special and token.after is not None


def _projections(tokens: Sequence[Token]) -> list[Json]:
    """Text and projection of each content token, axis units; `added` is the sum over the capped layers."""
    return [
        {
            "text": token.text,
            "before": rounded(token.before),
            "after": rounded(token.after),
            "added": rounded(token.correction),
        }
        | ({"reasoning": True} if token.reasoning else {})
        for token in tokens
        if _is_shown(token)
    ]


def _alternative(one: Alternative) -> Json:
    return _logprob(one.text, one.probability)


def _logprob(text: str, probability: float | None) -> Json:
    log = math.log(probability) if probability else _LEAST_LOG
    return {"token": text, "logprob": log, "bytes": list(text.encode())}
