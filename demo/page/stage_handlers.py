"""What the stage asks for: its own buttons send small requests, {"do": ..., more}, answered here.

Requests come from a browser and may hold anything: names and numbers are checked, and what cannot be done is said in a
notice. Quick ones are answered at once, slow ones wait for the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from demo.conversation.session_file import NAME, Recording, loads, rounded
from demo.conversation.settings import CAPPED, STEERED
from demo.conversation.transcripts import parse_transcript
from demo.conversation.turns import Turn, well_formed
from demo.engine.protocol import ReadToken, Request
from demo.models.chat_template import Message
from demo.page.chat_handlers import ChatHandlers, Shown
from demo.page.persistence import keep_op, restore_chats
from demo.page.recordings import checked_text, open_shipped, saved, talk_of
from demo.page.session import Session, Talk
from demo.page.settings_panel import cap_values, read_settings
from demo.page.updates import Op, Updates, turn_op
from demo.utils.errors import UserError

# Another try of a turn must not meet the numbers of the turns that follow it.
RETRY_STEP = 100

_IDLE = (gr.skip(), gr.skip())

Quick = tuple[Any, Any, Any]  # stage, message box, system prompt


@dataclass(frozen=True)
class StageHandlers:
    actions: ChatHandlers

    def quick(self, session: Session, event: gr.EventData, request: gr.Request, *values: Any) -> Quick:
        """show, undo, fork, switch, drop, recorded, save, restore: nothing of these needs the model."""
        ask, cap = _asked(event), cap_values(values)
        try:
            if session.running is session.talk and ask["do"] not in ("save", "show"):
                raise UserError("A reply is still being written; stop it first.")
            match ask["do"]:
                case "show":
                    return self.actions.reset(session, cap), gr.skip(), gr.skip()
                case "undo":
                    text = session.talk.conversation.undo()
                    return self.actions.reset(session, cap), text, gr.skip()
                case "fork":
                    self.actions.switch(session, session.talk.fork(self._turn(session, ask) + 1))
                case "switch":
                    self.actions.switch(session, session.talks[_index(ask, "talk", len(session.talks))])
                case "drop":
                    self.actions.forget([session.drop(_index(ask, "talk", len(session.talks)))])
                case "recorded":
                    recording = open_shipped(str(ask.get("name")))
                    return self.show_recording(session, recording, cap), "", recording.system_prompt
                case "save":
                    return self._save(session, str(ask.get("kind")), cap), gr.skip(), gr.skip()
                case "restore":
                    kept = ask.get("talks")
                    self.actions.admit_file(request, *(kept if isinstance(kept, list) else ()))
                    return self._restore(session, ask, cap)
                case _:
                    raise UserError("The page asked for something unknown; reload it.")
        except Exception as error:
            return self.actions.refusal(session, error), gr.skip(), gr.skip()
        return self.actions.reset(session, cap), "", session.talk.system_prompt

    def slow(
        self, session: Session, event: gr.EventData, request: gr.Request, *values: Any
    ) -> Iterator[Shown]:
        """regenerate, edit, layers, open: these run the model, or may."""
        ask = _asked(event)
        try:
            is_file = ask["do"] == "open"  # which has a limit of its own
            if is_file:
                self.actions.admit_file(request, ask.get("text"))
            with self.actions.admit(request, *(() if is_file else (ask.get("text"),)), *values):
                yield from self._slow(session, ask, values)
        except Exception as error:
            yield self.actions.refusal(session, error), gr.skip(), *_IDLE

    def _slow(self, session: Session, ask: Op, values: Any) -> Iterator[Shown]:
        match ask["do"]:
            case "regenerate":
                yield from self._regenerate(session, self._turn(session, ask), values)
            case "edit":
                turn = self._turn(session, ask)
                yield from self.actions.answer(session, str(ask.get("text", "")), values, turn)
            case "layers":
                yield from self._layers(session, ask, values)
            case "open":
                yield from self._open(session, ask, values)
            case _:
                raise UserError("The page asked for something unknown; reload it.")

    def _turn(self, session: Session, ask: Op) -> int:
        return _index(ask, "turn", len(session.talk.conversation.turns))

    def _regenerate(self, session: Session, index: int, values: Any) -> Iterator[Shown]:
        """The same message once more, with the settings of now and other random numbers than the last try."""
        turn = session.talk.conversation.turns[index]
        settings = read_settings(self.actions.axis, index, values)
        if turn.settings is not None:
            seed = turn.settings.sampling.seed + RETRY_STEP
            settings = replace(
                settings, sampling=replace(settings.sampling, seed=seed), only=turn.settings.only
            )
        yield from self.actions.answer(session, turn.user, values, index, settings)

    def _layers(self, session: Session, ask: Op, values: Any) -> Iterator[Shown]:
        """A reply at every decoder layer: as its branch reads it, and as the unsteered model does."""
        index, branch = self._turn(session, ask), str(ask.get("branch"))
        turn = session.talk.conversation.turns[index]
        if branch not in turn.replies or not turn.replies[branch].text:
            raise UserError("There is no reply to look at in this turn.")
        own = self._request(session.talk, index, branch, values)
        plain = self._read_last(replace(own, cap=None, steer=None))
        mine = plain if own.intervention == (None, None) else self._read_last(own)
        axis, cap = self.actions.axis, own.cap
        updates = Updates(session.talk.conversation)
        updates.say(
            {
                "op": "layers",
                "turn": index,
                "branch": branch,
                "probe": axis.probe_layer,
                "cap": [cap.layers[0], cap.layers[-1]] if cap else None,
                "floors": [rounded(axis.to_units(f, n)) for n, f in zip(cap.layers, cap.floors, strict=True)] if cap else [],
                "tokens": [token.text for token in mine],
                "own": [[rounded(value) for value in token.after] for token in mine],
                "plain": [[rounded(value) for value in token.after] for token in plain],
            }
        )  # fmt: skip
        yield updates.take(), gr.skip(), *_IDLE

    def _request(self, talk: Talk, index: int, branch: str, values: Any) -> Request:
        """To read one reply of the past as its branch wrote it."""
        turn = talk.conversation.turns[index]
        settings = turn.settings or read_settings(self.actions.axis, index, values)
        history = talk.conversation.messages(branch, settings.system_prompt, index)
        text = turn.replies[branch].text
        messages = [
            *history,
            Message(role="user", content=turn.user),
            Message(role="assistant", content=text),
        ]
        cap = settings.cap if branch == CAPPED else None
        steer = settings.steer if branch == STEERED else None
        return Request(branch, tuple(messages), cap=cap, steer=steer)

    def _read_last(self, request: Request) -> list[ReadToken]:
        last = len(request.messages) - 1
        return [
            token for part in self.actions.engine.read(request) for token in part if token.message == last
        ]

    def _open(self, session: Session, ask: Op, values: Any) -> Iterator[Shown]:
        """A session file is shown as it was; a transcript is read, or its user turns are said again to both branches."""
        text = checked_text(ask.get("text"))
        if NAME in text[:200]:
            yield self.show_recording(session, loads(text), cap_values(values)), "", *_IDLE
            return
        transcript = parse_transcript(text)
        title = f"Transcript{f' of {transcript.said_by}' if transcript.said_by else ''}"
        if ask.get("how") == "replay":
            talk = Talk(title=title, system_prompt=transcript.system_prompt, script=transcript.user_messages)
            self.actions.switch(session, talk)
            yield self.actions.reset(session, cap_values(values)), talk.next_line(), *_IDLE
            return
        yield from self._read(
            session,
            Talk(title=title, system_prompt=transcript.system_prompt),
            transcript.unread_turns(),
            values,
        )

    def show_recording(self, session: Session, recording: Recording, cap: Any) -> str:
        self.actions.switch(session, talk_of(recording, self.actions.model_name))
        return self.actions.reset(session, cap)

    def _read(self, session: Session, talk: Talk, turns: Sequence[Turn], values: Any) -> Iterator[Shown]:
        settings = replace(read_settings(self.actions.axis, 0, values), system_prompt=talk.system_prompt)
        talk.conversation.turns = list(turns)
        self.actions.switch(session, talk)
        session.claim(talk)
        try:
            yield (
                self.actions.reset(session, cap_values(values)),
                "",
                gr.update(visible=False),
                gr.update(visible=True),
            )
            for index, _ in talk.conversation.read(
                self.actions.engine, settings, self.actions.axis.probe_layer
            ):
                updates = Updates(talk.conversation)
                updates.say(turn_op(talk.conversation, index))
                if session.talk is talk:
                    yield updates.take(), gr.skip(), gr.skip(), gr.skip()
        finally:
            session.release(talk)
        updates = Updates(talk.conversation)
        updates.say(keep_op(talk, self.actions.recording(talk, cap_values(values))))
        yield updates.take(), gr.skip(), gr.update(visible=True), gr.update(visible=False)

    def _restore(self, session: Session, ask: Op, cap: Any) -> Quick:
        """What the browser kept of an earlier visit, and the message whose reply had not come."""
        restore_chats(session, ask.get("talks"), ask.get("current"), self.actions.model_name)
        draft = ask.get("draft")
        line = well_formed(draft) if isinstance(draft, str) and draft else session.talk.line_in_box()
        return self.actions.reset(session, cap, {"op": "restored"}), line, session.talk.system_prompt

    def _save(self, session: Session, kind: str, cap: Any) -> str:
        updates = Updates(session.talk.conversation)
        updates.say(saved(session.talk, self.actions.recording(session.talk, cap), kind))
        return updates.take()


def _asked(event: gr.EventData) -> Op:
    data = event._data
    return data if isinstance(data, dict) and "do" in data else {"do": None}


def _index(ask: Op, key: str, count: int) -> int:
    value = ask.get(key)
    if not isinstance(value, int) or not 0 <= value < count:
        raise UserError("That turn or conversation is no longer there.")
    return value
