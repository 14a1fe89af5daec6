"""Conversations: how a turn is run, undone, edited and forked.

A conversation has several branches. All of them see the same user messages, but each sees only its
own replies. The engine's events become part of the state and are then passed on.
"""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from threading import Event as CancelFlag
from typing import Literal

from demo.conversation.forks import Beginning, Beginnings, continued, forked, restore_cut
from demo.conversation.path import previous_state
from demo.conversation.reading import close, noting_messages, replies_read, with_unread
from demo.conversation.settings import ALL_BRANCHES, CAPPED, STEERED, UNCAPPED, TurnSettings
from demo.conversation.turns import Reply, Turn, rounded
from demo.engine.protocol import Engine, Event, Events, PromptEvent, Request, State, TooLongError, WaitEvent
from demo.models.chat_template import LeftOut, Message
from demo.utils.errors import UserError

End = Literal["beginning", "end"]


@dataclass
class Conversation:
    """One chat. `stop()` may be called from any thread, everything else from one thread at a time.

    Attributes:
        date: the day on which it began, YYYY-MM-DD. Chat templates that write a date write this one, so that
            a seed gives the same reply on another day.
        left_out: messages that the chat template left out when the conversation was last read as a whole.
    """

    turns: list[Turn] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())
    left_out: tuple[LeftOut, ...] = ()
    _cancel: CancelFlag = field(default_factory=CancelFlag, repr=False)

    def branch_id(self, branch: str) -> str:
        """The name under which the engine keeps this branch's KV cache."""
        return f"{self.id}/{branch}"

    def messages(self, branch: str, system_prompt: str = "", before: int | None = None) -> list[Message]:
        """What the model sees as history in this branch, up to turn number `before`.

        A turn that was stopped before its first token in this branch is left out, because a model that
        sees an empty reply tends to reply with nothing too.
        """
        history: list[Message] = (
            [{"role": "system", "content": system_prompt}] if system_prompt.strip() else []
        )
        for turn in self.turns[:before]:
            reply = turn.reply_in(branch)
            if reply is not None and (reply.text or reply.finish not in ("cancelled", "failed")):
                history += [{"role": "user", "content": turn.user}, message_of(reply)]
        return history

    def stop(self) -> None:
        """End the running turn within one decode step. The tokens so far are kept."""
        self._cancel.set()

    @property
    def stopped(self) -> bool:
        """Whether the last turn or reading was asked to stop."""
        return self._cancel.is_set()

    def undo(self) -> str:
        """Remove the last turn and return its user message. Raises UserError when there is none."""
        if not self.turns:
            raise UserError("There is no turn to take back.")
        return self.turns.pop().user

    def fork(self, turns: int | None = None) -> Conversation:
        """Another conversation that starts with the first `turns` turns of this one."""
        return Conversation(self.turns[:turns], date=self.date)

    def fork_at(
        self,
        engine: Engine,
        at: int,
        branch: str,
        token: int,
        then: int | str,
        settings: TurnSettings | None = None,
        everywhere: bool = False,
    ) -> tuple[Conversation, Events]:
        """Another conversation, in which turn `at` leaves this one at a token of one of its replies.

        Args:
            token, then, everywhere: see `forked`.
            settings: None for those with which the turn was answered, which give the same random numbers.

        Returns:
            The fork, with the turns up to this one, and the events of the turn.

        Raises:
            UserError: there is no such token, or the turn cannot be run.
        """
        turn, fork = self.turns[at], self.fork(at + 1)
        begin = forked(turn, branch, token, then, everywhere)
        return fork, fork.send(engine, turn.user, _settings_of(turn, settings), at, begin)

    def go_on(self, engine: Engine, at: int, branch: str, settings: TurnSettings | None = None) -> Events:
        """Continue a reply that was cut, in its place; the turns after it are removed.

        Args:
            settings: None for those with which the turn was answered. Their limits count from here on.

        Raises:
            UserError: the model ended the reply itself, or the turn cannot be run.
        """
        turn = self.turns[at]
        return self.send(engine, turn.user, _settings_of(turn, settings), at, continued(turn, branch))

    def send(
        self,
        engine: Engine,
        text: str,
        settings: TurnSettings,
        at: int | None = None,
        begin: Beginnings | None = None,
    ) -> Events:
        """Run one turn: all branches answer `text` together.

        A turn that fails midway is removed again. If the iterator is closed, the tokens so far are
        kept.

        Args:
            at: index of the turn to replace, together with all turns after it (an edited message, or
                another try). They are restored if the new turn fails. None appends a turn.
            begin: what the replies begin with, and which of the replaced turn's replies stay.

        Returns:
            The engine's events, each yielded once it is part of the state. Their `branch` is one of
            ALL_BRANCHES.

        Raises:
            UserError: at once, with nothing changed, when the turn cannot be run.
        """
        if not text.strip():
            raise UserError("Write a message first.")
        at = len(self.turns) if at is None else at
        self._cancel.clear()
        begin = begin or Beginnings()
        before = self.turns[at].replies if at < len(self.turns) else {}
        kept = {branch: reply for branch, reply in before.items() if branch in begin.kept}
        asked = list(begin.asked) or [branch for branch in settings.branches if branch not in kept]
        seeds = 1 if begin.extends else settings.seeds
        requests = [
            self._request(branch, text, settings, at, sample, begin.of.get(branch))
            for sample in range(seeds)
            for branch in asked
        ]
        events = engine.stream(requests, self._cancel)
        replies = dict(kept)
        for request in requests[: len(asked)]:
            branch, limit = branch_of(request.branch), request.sampling.max_new_tokens
            others = before[branch].samples if begin.extends else [Reply(limit) for _ in range(seeds - 1)]
            replies[branch] = Reply(limit, samples=others)
        turn = Turn(text, {branch: replies[branch] for branch in ALL_BRANCHES if branch in replies}, settings)
        replaced, self.turns[at:] = self.turns[at:], [turn]
        return self._follow(engine, turn, events, replaced, begin)

    def keep_what_fits(self, engine: Engine, settings: TurnSettings, keep: End) -> TooLongError | None:
        """Remove turns at one end, as few as will let `read` read the others with the system prompt.

        Any engine can be asked, because each refuses at once to read what its context window does not hold.

        Args:
            keep: the end that is kept.

        Returns:
            Why turns were removed; None if all fit.

        Raises:
            UserError: not even one turn fits, or the engine cannot read the conversation for another reason.
                Nothing has changed then.
        """

        def kept(count: int) -> list[Turn]:
            return self.turns[:count] if keep == "beginning" else self.turns[len(self.turns) - count :]

        def refusal(count: int) -> TooLongError | None:
            part = Conversation(kept(count), date=self.date)
            try:
                close(engine.read(part._reading(settings, CAPPED)))
            except TooLongError as error:
                return error
            return None

        too_long = refusal(len(self.turns))
        if too_long is None:
            return None
        fits, fails = 0, len(self.turns)
        while fails - fits > 1:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if refusal(middle) is None else (fits, middle)
        if not fits:
            end = "first" if keep == "beginning" else "last"
            raise UserError(
                f"Not even the {end} turn of this chat fits the model's context of {too_long.context:,} "
                "tokens; shorten it, or start the program with another model."
            ) from too_long
        self.turns = kept(fits)
        return too_long

    def read(self, engine: Engine, settings: TurnSettings, probe_layer: int) -> Iterator[tuple[int, str]]:
        """Fill in the projection of each token by reading the conversation. Nothing is generated.

        The UNCAPPED text is read twice: without the cap, and under the cap along the axis. A cap along
        another direction is left out, because a reading does not report what it adds. What the engine did not
        read stays as it was: replies after `stop()`, and what the chat template leaves out, of which
        `left_out` then tells.

        Yields:
            The index of a turn and its branch, once they have been read.

        Raises:
            UserError: the conversation does not fit the context window, or the engine fails.
        """
        self._cancel.clear()
        settings = replace(settings, read=True, plain=False, also=None, own=())
        capped = self._reading(settings, CAPPED)
        first = sum(message["role"] == "system" for message in capped.messages)
        texts = [turn.replies.get(UNCAPPED) for turn in self.turns]
        for request in (replace(capped, branch=UNCAPPED, cap=None), capped):
            seen: set[int] = set()
            chunks = engine.read(request, self._cancel)
            try:
                noted = noting_messages(chunks, seen)
                for index, reply in replies_read(noted, first, probe_layer, request.cap, self._cancel):
                    turn = self.turns[index]
                    turn.replies[request.branch] = with_unread(reply, texts[index])
                    turn.settings = settings
                    yield index, request.branch
            finally:
                close(chunks)
            if self._cancel.is_set():
                return
            self.left_out = tuple(
                LeftOut(index, message["role"], True)
                for index, message in enumerate(request.messages)
                if message["content"].strip() and index not in seen
            )

    def _reading(self, settings: TurnSettings, branch: str) -> Request:
        """The request that reads the UNCAPPED text as `branch` would."""
        return Request(
            branch,
            tuple(self.messages(UNCAPPED, settings.system_prompt)),
            cap=settings.cap,
            span=settings.span,
            thinking=settings.thinking,
            date=self.date,
            along=settings.along,
        )

    def _follow(
        self, engine: Engine, turn: Turn, events: Events, replaced: Sequence[Turn], begin: Beginnings
    ) -> Events:
        began = time.monotonic()
        try:
            with closing(events):
                for event in events:
                    taken = self._take(turn, event, round(1000 * (time.monotonic() - began)), begin)
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
            if replaced:
                restore_cut(turn, replaced[0], begin)
            samples = [
                f"{self.branch_id(b)}#{n}"
                for b, r in turn.replies.items()
                for n in range(1, len(r.samples) + 1)
            ]
            engine.forget(samples)

    def _request(
        self, branch: str, text: str, settings: TurnSettings, at: int, sample: int, begin: Beginning | None
    ) -> Request:
        history = self.messages(branch, settings.prompt_in(branch), at)
        sampling = settings.sampling_in(branch)
        if begin is not None:
            sampling = begin.sampling(sampling)
        return Request(
            self.branch_id(branch) + (f"#{sample}" if sample else ""),
            (*history, Message(role="user", content=text)),
            replace(sampling, seed=settings.seed_of(sample)),
            settings.cap_in(branch),
            settings.steer if branch == STEERED else None,
            settings.span,
            settings.thinking,
            self.date,
            settings.also if branch == CAPPED else None,
            settings.along,
            settings.plain and branch == CAPPED and not sample,
            self._first_state(branch, at),
            () if begin is None else begin.opening,
            previous=previous_state(self.turns[:at], branch),
        )

    def _first_state(self, branch: str, at: int) -> State | None:
        """The mean state of the branch's first reply before turn `at` that has one: not a stopped one."""
        replies = (turn.reply_in(branch) for turn in self.turns[:at])
        return next((reply.state for reply in replies if reply is not None and reply.state is not None), None)

    def _take(self, turn: Turn, event: Event, at: int, begin: Beginnings) -> Event | None:
        """Add an event to the state. Events of additional samples are not passed on."""
        if isinstance(event, WaitEvent):
            return event
        branch, sample = branch_of(event.branch), event.branch.partition("#")[2]
        reply = turn.replies[branch]
        target = reply.samples[int(sample) - 1] if sample else reply
        if isinstance(event, PromptEvent):
            target.user_projection, target.start = event.user_projection, rounded(event.start)
        else:
            target.finish, target.fault = event.finish_reason, event.fault
            target.shift, target.step = event.shift, event.step
            if not sample:
                target.state = event.state
            if event.token_id is not None:
                beginning, token = begin.of.get(branch), replace(event.token, at=at)
                target.add(beginning.noted(len(target.tokens), token) if beginning else token)
        return None if sample else replace(event, branch=branch)


def _settings_of(turn: Turn, settings: TurnSettings | None) -> TurnSettings:
    """The given settings or else the turn's own, for generated replies. Raises UserError without either."""
    how = settings or turn.settings
    if how is None:
        raise UserError("It is not known how this turn was answered; say with which settings to go on.")
    return replace(how, read=False)


def branch_of(name: str) -> str:
    """The branch in the name under which the engine keeps one of its sequences."""
    return name.rpartition("/")[2].partition("#")[0]


def message_of(reply: Reply) -> Message:
    """A reply as a message of the history. The chat template decides whether its reasoning stays in it."""
    if reply.reasoning.strip():
        return {"role": "assistant", "content": reply.text, "reasoning": reply.reasoning.strip("\n")}
    return {"role": "assistant", "content": reply.text}
