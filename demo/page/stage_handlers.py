"""Handlers for the stage's own buttons, which send requests (see stage/protocol.json).

A `Dispatcher` has one method `on_<request>` for each request that it answers. `RecordingHandlers` answers the
requests that need no model, and serves the page without one (viewer.py). `StageHandlers` answers all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr

from demo.conversation.conversation import message_of
from demo.conversation.session_file import NAME, Recording, loads, rounded
from demo.conversation.settings import CAPPED, STEERED
from demo.conversation.transcripts import parse_transcript
from demo.conversation.turns import Turn, well_formed
from demo.engine.protocol import Message, ReadToken, Request
from demo.page.chat_handlers import ChatHandlers, PageUpdate
from demo.page.persistence import persist_op, restore_chats
from demo.page.recordings import chat_of, checked_text, download_op, open_shipped
from demo.page.session import Chat, Session
from demo.page.settings_panel import PanelValues
from demo.page.stage.protocol import StageRequest, operation
from demo.page.updates import Updates, left_out_op, turn_op
from demo.utils.errors import UserError

# Distance between the seeds of two attempts at a turn, clear of the seeds of the turns that follow.
RETRY_STEP = 100
Answer = Iterator[PageUpdate]


@dataclass(frozen=True)
class Call:
    """One request of the stage, with the session and the settings it came with.

    Attributes:
        values: None on a page without a model.
    """

    session: Session
    asked: StageRequest
    values: PanelValues | None
    request: gr.Request

    @property
    def settings(self) -> PanelValues:
        """The settings, on a page with a model."""
        assert self.values is not None
        return self.values

    @property
    def turn(self) -> int:
        """The requested turn. Raises UserError when it is no longer there."""
        return self.asked.index("turn", len(self.session.chat.conversation.turns))

    @property
    def chat(self) -> int:
        """The requested conversation. Raises UserError when it is no longer there."""
        return self.asked.index("conversation", len(self.session.chats))


class Dispatcher:
    """Answers a request by the method of its name."""

    unavailable = "This page cannot do that; reload it."

    def dispatch(
        self, session: Session, data: object, values: PanelValues | None, request: gr.Request
    ) -> Answer:
        """Answer what the browser sent, which may be anything. Errors become a notice."""
        try:
            asked = StageRequest.parse(data)
            answer = getattr(self, f"on_{asked.name}", None)
            if answer is None:
                raise UserError(self.unavailable)
            yield from answer(Call(session, asked, values, request))
        except Exception as error:
            yield self.refused(session, error)

    def refused(self, session: Session, error: Exception) -> PageUpdate:
        """A notice that says why a request was not answered."""
        raise NotImplementedError


class RecordingHandlers(Dispatcher):
    """The requests that work on recorded sessions."""

    def shown(self, call: Call) -> PageUpdate:
        """The conversation that is shown, from scratch."""
        raise NotImplementedError

    def switch(self, session: Session, chat: Chat) -> None:
        """Show another conversation."""
        raise NotImplementedError

    def recording(self, call: Call) -> Recording:
        """The conversation that is shown, as a recording."""
        raise NotImplementedError

    def closed(self, chat: Chat) -> None:
        """A conversation was closed."""

    def recorded_as(self) -> str:
        """Name of the model that could continue a recording here; "" for none."""
        return ""

    def changed(self, call: Call) -> PageUpdate:
        """Another conversation is shown: its system prompt, and an empty message box."""
        prompt = call.session.chat.system_prompt
        return replace(self.shown(call), message="", system_prompt=prompt)

    def on_show(self, call: Call) -> Answer:
        yield self.shown(call)

    def on_switch(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        self.switch(call.session, call.session.chats[call.chat])
        yield self.changed(call)

    def on_close(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        self.closed(call.session.close(call.chat))
        yield self.changed(call)

    def on_recorded(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        recording = open_shipped(call.asked.fields["name"])
        self.switch(call.session, chat_of(recording, self.recorded_as()))
        yield self.changed(call)

    def on_save(self, call: Call) -> Answer:
        updates = Updates(call.session.chat.conversation)
        updates.add(download_op(call.session.chat, self.recording(call), call.asked.fields["kind"]))
        yield PageUpdate(updates.take())


class StageHandlers(RecordingHandlers):
    """All requests, on a page with a model."""

    def __init__(self, handlers: ChatHandlers) -> None:
        self._handlers = handlers

    def refused(self, session: Session, error: Exception) -> PageUpdate:
        return self._handlers.refusal(session, error)

    def shown(self, call: Call) -> PageUpdate:
        return self._handlers.reset(call.session, call.settings)

    def switch(self, session: Session, chat: Chat) -> None:
        self._handlers.switch(session, chat)

    def recording(self, call: Call) -> Recording:
        return self._handlers.recording(call.session.chat, call.settings)

    def closed(self, chat: Chat) -> None:
        self._handlers.forget([chat])

    def recorded_as(self) -> str:
        return self._handlers.model_name

    # --- requests that do not need the model

    def on_undo(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        text = call.session.chat.conversation.undo()
        yield replace(self.shown(call), message=text)

    def on_fork(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        self.switch(call.session, call.session.chat.fork(call.turn + 1))
        yield self.changed(call)

    def on_restore(self, call: Call) -> Answer:
        """The conversations that the browser stored, and the message that had not been answered."""
        refuse_while_running(call.session)
        fields = call.asked.fields
        self._handlers.admit_file(call.request, *fields["conversations"])
        restore_chats(call.session, fields["conversations"], fields["current"], self.recorded_as())
        chat = call.session.chat
        line = well_formed(fields["draft"] or "") or chat.line_in_box()
        shown = self._handlers.reset(call.session, call.settings, operation("restored"))
        yield replace(shown, message=line, system_prompt=chat.system_prompt)

    # --- requests that run the model

    def on_edit(self, call: Call) -> Answer:
        """Another message in the place of the turn's, with the current settings."""
        text = call.asked.fields["text"]
        with self._handlers.admit(call.request, len(text) + call.settings.characters):
            yield from self._handlers.answer(call.session, text, call.settings, call.turn)

    def on_regenerate(self, call: Call) -> Answer:
        """The same message again, with the current settings and new random numbers."""
        with self._handlers.admit(call.request, call.settings.characters):
            index = call.turn
            turn = call.session.chat.conversation.turns[index]
            settings = call.settings.turn_settings(self._handlers.axis, index)
            if turn.settings is not None:
                seed = turn.settings.sampling.seed + RETRY_STEP
                sampling = replace(settings.sampling, seed=seed)
                settings = replace(settings, sampling=sampling, only=turn.settings.only)
            yield from self._handlers.answer(call.session, turn.user, call.settings, index, settings)

    def on_layers(self, call: Call) -> Answer:
        """A reply at every decoder layer: as its branch reads it, and as the unsteered model does."""
        with self._handlers.admit(call.request, call.settings.characters):
            yield self._layers(call)

    def _layers(self, call: Call) -> PageUpdate:
        index, branch = call.turn, call.asked.fields["branch"]
        turn = call.session.chat.conversation.turns[index]
        if branch not in turn.replies or not any(token.text for token in turn.replies[branch].tokens):
            raise UserError("This branch has no reply in this turn.")
        own = self._read_request(call, index, branch)
        plain = self._read_reply(replace(own, cap=None, steer=None))
        mine = plain if own.cap is None and own.steer is None else self._read_reply(own)
        axis, cap = self._handlers.axis, own.cap
        floors = zip(cap.layers, cap.floors, strict=True) if cap else ()
        updates = Updates(call.session.chat.conversation)
        updates.add(
            operation(
                "layers",
                turn=index,
                branch=branch,
                probe=axis.probe_layer,
                cap=[cap.layers[0], cap.layers[-1]] if cap else None,
                floors=[rounded(axis.to_units(floor, layer)) for layer, floor in floors],
                tokens=[token.text for token in mine],
                reasoning=sum(token.reasoning for token in mine),
                own=[[rounded(value) for value in token.after] for token in mine],
                plain=[[rounded(value) for value in token.after] for token in plain],
            )
        )
        return PageUpdate(updates.take(), busy=None)

    def _read_request(self, call: Call, index: int, branch: str) -> Request:
        """The request that reads an earlier reply under the intervention of its branch."""
        conversation = call.session.chat.conversation
        turn = conversation.turns[index]
        settings = turn.settings or call.settings.turn_settings(self._handlers.axis, index)
        messages = [
            *conversation.messages(branch, settings.system_prompt, index),
            Message(role="user", content=turn.user),
            message_of(turn.replies[branch]),
        ]
        cap = settings.cap if branch == CAPPED else None
        steer = settings.steer if branch == STEERED else None
        return Request(
            branch,
            tuple(messages),
            cap=cap,
            steer=steer,
            span=settings.span,
            thinking=settings.thinking,
            date=conversation.date,
        )

    def _read_reply(self, request: Request) -> list[ReadToken]:
        last = len(request.messages) - 1
        chunks = self._handlers.engine.read(request)
        return [token for chunk in chunks for token in chunk if token.message == last]

    def on_open(self, call: Call) -> Answer:
        """Open a session file or a transcript.

        A session file is shown as it was recorded. A transcript is read, or its user messages are replayed
        to both branches.
        """
        self._handlers.admit_file(call.request, call.asked.fields["text"])
        with self._handlers.admit(call.request, call.settings.characters):
            text = checked_text(call.asked.fields["text"])
            if NAME in text[:200]:
                self.switch(call.session, chat_of(loads(text), self.recorded_as()))
                yield replace(self.shown(call), message="")
                return
            transcript = parse_transcript(text)
            title = f"Transcript of {transcript.model}" if transcript.model else "Transcript"
            chat = Chat(title=title, system_prompt=transcript.system_prompt)
            if call.asked.fields["how"] == "replay":
                chat.script = transcript.user_messages
                self.switch(call.session, chat)
                yield replace(self.shown(call), message=chat.next_line())
                return
            yield from self._read_transcript(call, chat, transcript.unread_turns())

    def _read_transcript(self, call: Call, chat: Chat, turns: Sequence[Turn]) -> Answer:
        handlers, session = self._handlers, call.session
        settings = call.settings.turn_settings(handlers.axis, 0)
        settings = replace(settings, system_prompt=chat.system_prompt)
        chat.conversation.turns = list(turns)
        self.switch(session, chat)
        session.claim(chat)
        updates = Updates(chat.conversation)
        try:
            yield replace(self.shown(call), message="", busy=True)
            probe = handlers.axis.probe_layer
            for index, _ in chat.conversation.read(handlers.engine, settings, probe):
                updates.add(turn_op(chat.conversation, index))
                if session.chat is chat:
                    yield PageUpdate(updates.take())
            if chat.note_left_out(chat.conversation.left_out):
                updates.add(left_out_op(chat.left_out))
        finally:
            session.release(chat)
        updates.add(persist_op(chat, handlers.recording(chat, call.settings)))
        yield PageUpdate(updates.take(), busy=False)


def refuse_while_running(session: Session) -> None:
    """Raises UserError while a reply of the conversation that is shown is being written."""
    if session.running is session.chat:
        raise UserError("A reply is still being written; stop it first.")
