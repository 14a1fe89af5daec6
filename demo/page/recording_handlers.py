"""Handlers for those of the stage's requests that need no model, and how a request finds its handler.

A `Dispatcher` has one method `on_<request>` for each request that it answers (see stage/protocol.json).
`RecordingHandlers` serves the page without a model (viewer.py), and is the base of those with one
(stage_handlers.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr

from demo.conversation.forks import Notes
from demo.conversation.session_file import Recording
from demo.conversation.turns import well_formed
from demo.page.chat_handlers import PageUpdate
from demo.page.comparison import compared_op
from demo.page.fork_tree import chats_of, tree_op, with_forks
from demo.page.recordings import download_op, open_shipped
from demo.page.session import Chat, Session, tree_of
from demo.page.settings_panel import PanelValues
from demo.page.shared_sessions import SharedSessions, shared_chat
from demo.page.stage.protocol import Operation, StageRequest
from demo.page.updates import Updates
from demo.utils.errors import UserError

Answer = Iterator[PageUpdate]

# Characters of a note.
MOST_NOTED = 2000


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

    def recording(self, call: Call, chat: Chat) -> Recording:
        """An open conversation as a recording."""
        raise NotImplementedError

    @property
    def shared_sessions(self) -> SharedSessions:
        """The sessions that visitors may open by address."""
        return SharedSessions()

    def admit_file(self, call: Call, *texts: object) -> None:
        """Count the text of a file. Raises UserError when the visitor has opened too many."""

    def closed(self, chat: Chat) -> None:
        """A conversation was closed."""

    def recorded_as(self) -> str:
        """Name of the model that could continue a recording here; "" for none."""
        return ""

    def open_recording(self, call: Call, recording: Recording) -> Answer:
        """Open a recording with its forks, and show its first conversation."""
        chats = chats_of(recording, self.recorded_as())
        for chat in (*chats, chats[0]):
            self.switch(call.session, chat)
        yield self.changed(call)
        yield from self.stored(call, chats[1:])

    def stored(self, call: Call, chats: Sequence[Chat]) -> Answer:
        """What the browser is to store of conversations that are open and not shown."""
        yield from ()

    def changed(self, call: Call) -> PageUpdate:
        """Another conversation is shown: its system prompt, and its script's next message in the box."""
        chat = call.session.chat
        return replace(self.shown(call), message=chat.next_line(), system_prompt=chat.system_prompt)

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
        yield from self.open_recording(call, open_shipped(call.asked.fields["name"]))

    def on_shared(self, call: Call) -> Answer:
        """A session that the page's address names. What a tab has brought back of it is shown as it is."""
        refuse_while_running(call.session)
        name = call.asked.fields["name"]
        text = self.shared_sessions.text(name)
        self.admit_file(call, text)
        chat = shared_chat(name, text, self.recorded_as())
        for known in call.session.chats:
            if known.id == chat.id:
                known.recording, known.address = chat.recording, chat.address
                chat = known
        self.switch(call.session, chat)
        yield self.changed(call)

    def on_save(self, call: Call) -> Answer:
        """A file of the conversation that is shown; a session file holds its whole tree of forks."""
        session, kind = call.session, call.asked.fields["kind"]
        chat = session.chat
        recording = self.recording(call, chat)
        if kind == "json":
            chat = tree_of(session.chats, chat)[0]
            recording = with_forks(recording, session.chats, chat)
        updates = Updates(session.chat.conversation)
        updates.add(download_op(chat, recording, kind))
        yield PageUpdate(updates.take())

    def on_compare(self, call: Call) -> Answer:
        """Another open conversation beside the one that is shown."""
        wanted = call.asked.fields["conversation"]
        other = next((chat for chat in call.session.chats if chat.id == wanted), None)
        if other is None:
            raise UserError("That conversation is no longer open; choose another one to compare with.")
        shown, updates = call.session.chat, Updates(call.session.chat.conversation)
        updates.add(compared_op(other, self.recording(call, other), self.recording(call, shown)))
        yield PageUpdate(updates.take())

    def on_tree(self, call: Call) -> Answer:
        """The tree of forks, and what a filter finds in it."""
        yield self._tree(call)

    def on_note(self, call: Call) -> Answer:
        """A star or a note on a conversation."""
        star, note = bool(call.asked.fields["star"]), well_formed(call.asked.fields["note"])
        if len(note) > MOST_NOTED:
            raise UserError(f"A note can have {MOST_NOTED} characters, not {len(note)}; make it shorter.")
        chat = call.session.chats[call.chat]
        chat.notes = Notes(star, note)
        yield self._tree(call, *self.noted(call, chat))

    def noted(self, call: Call, chat: Chat) -> list[Operation]:
        """What follows where a note has been changed."""
        return []

    def _tree(self, call: Call, *more: Operation) -> PageUpdate:
        fields, updates = call.asked.fields, Updates(call.session.chat.conversation)
        updates.add(tree_op(call.session, fields["words"], fields["below"]), *more)
        return PageUpdate(updates.take())


def refuse_while_running(session: Session) -> None:
    """Raises UserError while a reply of the conversation that is shown is being written."""
    if session.running is session.chat:
        raise UserError("A reply is still being written; stop it first.")
