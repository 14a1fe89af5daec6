"""Conversations: how a turn is run, taken back, changed and forked. Engine events become state and are passed on.

A conversation has branches that see the same user messages but their own replies. This module knows neither the page nor
the model.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event as CancelFlag

from demo.conversation.settings import CAPPED, SEED_STEP, STEERED, UNCAPPED, TurnSettings
from demo.conversation.turns import Reply, Token, Turn
from demo.engine.protocol import Cap, Engine, Event, Events, PromptEvent, ReadToken, Request, WaitEvent
from demo.models.chat_template import Message
from demo.utils.errors import UserError


@dataclass
class Conversation:
    """One visitor's chat. `stop()` may be called from any thread; everything else from one at a time."""

    turns: list[Turn] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _cancel: CancelFlag = field(default_factory=CancelFlag, repr=False)

    def branch_id(self, branch: str) -> str:
        """The name under which the engine keeps this branch's KV cache."""
        return f"{self.id}/{branch}"

    def messages(self, branch: str, system_prompt: str = "", before: int | None = None) -> list[Message]:
        """What the model sees as history in this branch, up to turn number `before`. A turn that was stopped before the branch said
        anything is left out: a model that sees an empty reply likes to say nothing too."""
        history: list[Message] = (
            [{"role": "system", "content": system_prompt}] if system_prompt.strip() else []
        )
        for turn in self.turns[:before]:
            reply = turn.reply_in(branch)
            if reply is not None and (reply.text or reply.finish != "cancelled"):
                history.append({"role": "user", "content": turn.user})
                history.append({"role": "assistant", "content": reply.text})
        return history

    def stop(self) -> None:
        """End the running turn within one decode step; what has been said so far stays."""
        self._cancel.set()

    def undo(self) -> str:
        """Take the last turn back and return what the user had said. UserError when there is none."""
        if not self.turns:
            raise UserError("There is no turn to take back.")
        return self.turns.pop().user

    def fork(self, turns: int | None = None) -> Conversation:
        """Another conversation that has the first `turns` turns of this one and goes its own way from there."""
        return Conversation(self.turns[:turns])

    def send(self, engine: Engine, text: str, settings: TurnSettings, at: int | None = None) -> Events:
        """Run one turn: all branches answer `text` together. at: in place of this turn and all after it (an edited
        message, or another try), which come back if the new one fails.

        Returns an iterator of the engine's events, each given once it is in the state, with `branch` as in ALL_BRANCHES.
        Raises UserError at once, with nothing changed, when the turn cannot be run. A turn that fails midway is
        taken out again; one whose iterator is closed keeps what was said.
        """
        if not text.strip():
            raise UserError("Write a message first.")
        at = len(self.turns) if at is None else at
        self._cancel.clear()
        limit = settings.sampling.max_new_tokens
        requests = [
            self._request(branch, text, settings, at, sample)
            for sample in range(settings.seeds)
            for branch in settings.branches
        ]
        events = engine.stream(requests, self._cancel)
        samples = {b: [Reply(limit) for _ in range(settings.seeds - 1)] for b in settings.branches}
        turn = Turn(text, {b: Reply(limit, samples=samples[b]) for b in settings.branches}, settings)
        replaced, self.turns[at:] = self.turns[at:], [turn]
        return self._follow(engine, turn, events, replaced)

    def read(self, engine: Engine, settings: TurnSettings, probe_layer: int) -> Iterator[tuple[int, str]]:
        """Fill in where each token of this conversation stands by reading it, with nothing generated: its UNCAPPED text, once
        as the model reads it and once as it reads it under the cap.

        Gives the number of each turn and its branch once that has been read. Raises UserError when it does not fit.
        """
        self._cancel.clear()
        text = tuple(self.messages(UNCAPPED, settings.system_prompt))
        begun = len(text) - 2 * len(self.turns)  # messages before the first turn: the system prompt
        for branch, cap in ((UNCAPPED, None), (CAPPED, settings.cap)):
            parts = engine.read(Request(branch, text, cap=cap), self._cancel)
            for index, reply in enumerate(_replies_read(parts, begun, probe_layer, cap)):
                self.turns[index].replies[branch] = reply
                yield index, branch

    def _follow(self, engine: Engine, turn: Turn, events: Events, replaced: Sequence[Turn]) -> Events:
        began = time.monotonic()
        try:
            with closing(events):
                for event in events:
                    taken = self._take(turn, event, round(1000 * (time.monotonic() - began)))
                    if taken is not None:
                        yield taken
        except GeneratorExit:
            for reply in turn.replies.values():
                for one in (reply, *reply.samples):
                    one.finish = one.finish or "cancelled"
            raise
        except Exception:
            at = self.turns.index(turn)
            self.turns[at:] = replaced
            raise
        finally:
            samples = [
                f"{self.branch_id(b)}#{n}"
                for b, r in turn.replies.items()
                for n in range(1, len(r.samples) + 1)
            ]
            engine.forget(samples)

    def _request(self, branch: str, text: str, settings: TurnSettings, at: int, sample: int) -> Request:
        history = self.messages(branch, settings.system_prompt, at)
        return Request(
            self.branch_id(branch) + (f"#{sample}" if sample else ""),
            (*history, Message(role="user", content=text)),
            replace(settings.sampling, seed=settings.sampling.seed + SEED_STEP * sample),
            settings.cap if branch == CAPPED else None,
            settings.steer if branch == STEERED else None,
        )

    def _take(self, turn: Turn, event: Event, at: int) -> Event | None:
        """Put an event into the state. Events of further samples are kept, not passed on."""
        if isinstance(event, WaitEvent):
            return event
        branch, _, sample = event.branch.rpartition("/")[2].partition("#")
        reply = turn.replies[branch]
        target = reply.samples[int(sample) - 1] if sample else reply
        if isinstance(event, PromptEvent):
            target.user_projection = event.user_projection
        else:
            target.finish = event.finish_reason
            if event.token_id is not None:
                target.add(
                    Token(
                        event.text,
                        event.projection,
                        event.projection_after,
                        event.corrections,
                        event.is_special,
                        event.coordinates,
                        event.probability,
                        at,
                    )
                )
        return None if sample else replace(event, branch=branch)


def _replies_read(
    parts: Iterator[list[ReadToken]], begun: int, probe: int, cap: Cap | None
) -> Iterator[Reply]:
    """Replies from the tokens of a chat that is read, one a turn, each once the next turn begins."""
    layers = cap.layers if cap else ()
    reply, number = Reply(0), 0
    user: list[float] = []
    for token in (token for part in parts for token in part if token.message >= begun):
        turn, is_reply = divmod(token.message - begun, 2)
        if turn != number:
            yield _finished(reply, user)
            reply, user, number = Reply(0), [], turn
        if is_reply:
            lifts = tuple(token.after[layer] - token.before[layer] for layer in layers)
            reply.add(
                Token(token.text, token.before[probe], token.after[probe], lifts, False, token.coordinates)
            )
        else:
            user.append(token.before[probe])
    yield _finished(reply, user)


def _finished(reply: Reply, user: list[float]) -> Reply:
    reply.user_projection = sum(user) / len(user) if user else None
    reply.limit, reply.finish = len(reply.tokens), "stop"
    return reply
