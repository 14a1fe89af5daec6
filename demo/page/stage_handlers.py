"""Handlers for the stage's own buttons on a page with a model, one method for each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from demo.conversation.conversation import End
from demo.conversation.forks import (
    Beginnings,
    ForkPoint,
    as_before,
    continued,
    fitted,
    forked,
    index_of,
    text_of,
)
from demo.conversation.session_file import Recording
from demo.conversation.settings import CAPPED, TurnSettings
from demo.conversation.transcripts import Transcript, parse_file
from demo.conversation.turns import Turn, well_formed
from demo.page.chat_handlers import ChatHandlers, PageUpdate
from demo.page.layers import layers_op
from demo.page.opening import (
    LEFT_OUT_REASONING,
    Place,
    chat_of_transcript,
    chats_op,
    describe_cut,
    describe_readers,
    has_unread_reasoning,
)
from demo.page.persistence import persist_op, restore_chats
from demo.page.recording_handlers import Answer, Call, RecordingHandlers, refuse_while_running
from demo.page.recordings import checked_text
from demo.page.session import Chat, Session
from demo.page.shared_sessions import SharedSessions
from demo.page.stage.protocol import Operation, operation
from demo.page.updates import Updates, left_out_op, notice_op, turn_op
from demo.utils.errors import UserError

# Distance between the seeds of two attempts at a turn, clear of the seeds of the turns that follow.
RETRY_STEP = 100


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

    def recording(self, call: Call, chat: Chat) -> Recording:
        return self._handlers.recording(chat, call.settings)

    @property
    def shared_sessions(self) -> SharedSessions:
        return self._handlers.shared_sessions

    def admit_file(self, call: Call, *texts: object) -> None:
        self._handlers.admit_file(call.request, *texts)

    def closed(self, chat: Chat) -> None:
        self._handlers.forget([chat])

    def recorded_as(self) -> str:
        return self._handlers.model_name

    # --- requests that do not need the model

    def on_undo(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        text = call.session.chat.conversation.undo()
        yield replace(self.shown(call), message=text)

    def on_system_prompt(self, call: Call) -> Answer:
        """The next turn's system prompt, edited in a pane."""
        yield self._handlers.set_system_prompt(call.session, call.asked.fields["text"])

    def on_typed_prompt(self, call: Call) -> Answer:
        """The next turn's system prompt, as it is typed into the settings."""
        fields = call.asked.fields
        yield self._handlers.note_typed_prompt(call.session, fields["conversation"], fields["text"])

    def on_fork(self, call: Call) -> Answer:
        refuse_while_running(call.session)
        self.switch(call.session, call.session.chat.fork(call.turn + 1))
        yield self.changed(call)

    def on_restore(self, call: Call) -> Answer:
        """The conversations that the browser stored, and the message that had not been answered."""
        refuse_while_running(call.session)
        fields = call.asked.fields
        self.admit_file(call, *fields["conversations"])
        restore_chats(call.session, fields["conversations"], fields["current"], self.recorded_as())
        chat = call.session.chat
        line = well_formed(fields["draft"] or "") or chat.next_line()
        shown = self._handlers.reset(call.session, call.settings, operation("restored"))
        yield replace(shown, message=line, system_prompt=chat.system_prompt)

    def noted(self, call: Call, chat: Chat) -> list[Operation]:
        recording = self._handlers.recording(chat, call.settings)
        # The browser has the turns of the conversation that is shown; others it may only have stored.
        start = len(chat.conversation.turns) if chat is call.session.chat else 0
        return [persist_op(chat, recording, start)]

    def stored(self, call: Call, chats: Sequence[Chat]) -> Answer:
        updates = Updates(call.session.chat.conversation)
        updates.add(*(persist_op(chat, self._handlers.recording(chat, call.settings)) for chat in chats))
        if chats:
            yield PageUpdate(updates.take())

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
            settings = self._handlers.settings_of(call.settings, index)
            before = turn.settings or settings
            sampling = replace(settings.sampling, seed=before.sampling.seed + RETRY_STEP)
            settings = replace(settings, sampling=sampling, only=before.only, attempt=before.attempt + 1)
            begin = as_before(turn)
            yield from self._handlers.answer(call.session, turn.user, call.settings, index, settings, begin)

    def on_fork_at(self, call: Call) -> Answer:
        """A fork, in which a reply goes on with something else in the place of one of its tokens."""
        refuse_while_running(call.session)
        fields, session, index = call.asked.fields, call.session, call.turn
        text = well_formed(fields["text"])
        with self._handlers.admit(call.request, len(text) + call.settings.characters):
            chat = refuse_watched(session.chat)
            turn, branch = chat.conversation.turns[index], fields["branch"]
            place = index_of(turn, branch, fields["token"])
            token = turn.replies[branch].tokens[place]
            then = fitted(text, token.text) if fields["id"] is None else fields["id"]
            begin = forked(turn, branch, place, then, fields["where"] == "all")
            words = then if isinstance(then, str) else text_of(token, then)
            point = ForkPoint(index, branch, fields["token"], token.text, words)
            yield from self._answer_in(call, chat.fork(index + 1, point), turn, begin)

    def on_go_on(self, call: Call) -> Answer:
        """Continue a reply that was cut: in its place if nothing follows it, in a fork otherwise."""
        refuse_while_running(call.session)
        index, session = call.turn, call.session
        with self._handlers.admit(call.request, call.settings.characters):
            chat = refuse_watched(session.chat)
            turn = chat.conversation.turns[index]
            begin = continued(turn, call.asked.fields["branch"])
            last = index + 1 == len(chat.conversation.turns)
            fork = chat if last else chat.fork(index + 1, ForkPoint(index))
            yield from self._answer_in(call, fork, turn, begin)

    def _answer_in(self, call: Call, fork: Chat, turn: Turn, begin: Beginnings) -> Answer:
        """Answer a turn in a fork, which is closed again if nothing comes of it, or in the chat itself."""
        session, origin, index = call.session, call.session.chat, call.turn
        settings = replace(self._settings_of(call, index), read=False)
        if fork is not origin:
            self.switch(session, fork)
            yield self.changed(call)
        yield from self._handlers.answer(session, turn.user, call.settings, index, settings, begin, fork)
        unchanged = fork.conversation.turns[index] is turn and fork in session.chats
        if fork is not origin and session.chat is fork and unchanged:
            self.closed(session.close(session.chats.index(fork)))
            self.switch(session, origin)
            yield self.changed(call)

    def on_layers(self, call: Call) -> Answer:
        """A reply at every decoder layer: as its branch reads it, and as the unsteered model does."""
        handlers, conversation = self._handlers, call.session.chat.conversation
        updates, branch = Updates(conversation), call.asked.fields["branch"]
        asked = {"conversation": call.session.chat.id}  # another one may be shown when the answer arrives
        try:
            with handlers.admit(call.request, call.settings.characters):
                index = call.turn
                settings = self._settings_of(call, index)
                read = layers_op(handlers.engine, handlers.axis, conversation, index, branch, settings)
                updates.add(read | asked)
                yield PageUpdate(updates.take())
        except Exception:
            turn = call.asked.fields["turn"]
            updates.add(operation("layers_failed", turn=turn, branch=branch, **asked))
            yield PageUpdate(updates.take())
            raise

    def _settings_of(self, call: Call, index: int) -> TurnSettings:
        """The settings of an earlier turn; those of the panel if they are not known or of another model."""
        settings = call.session.chat.conversation.turns[index].settings
        if settings is None or call.session.chat.watch_only:
            return self._handlers.settings_of(call.settings, index)
        return settings

    def on_open(self, call: Call) -> Answer:
        """Open a session file or a transcript.

        A session file is shown as it was recorded. A transcript is read, or its user messages are replayed
        to both branches. If a file holds several, the visitor is asked which.
        """
        fields = call.asked.fields
        self.admit_file(call, fields["text"])
        with self._handlers.admit(call.request, call.settings.characters):
            found = parse_file(checked_text(fields["text"]))
            if isinstance(found, Recording):
                yield from self.open_recording(call, found)
            elif fields["chat"] is None and len(found.chats) > 1:
                updates = Updates(call.session.chat.conversation)
                updates.add(chats_op(found))
                yield PageUpdate(updates.take())
            else:
                transcript = found.transcript(fields["chat"] or 0)
                open_as = self._replay if fields["how"] == "replay" else self._read_transcript
                yield from open_as(call, transcript)

    def _replay(self, call: Call, transcript: Transcript) -> Answer:
        chat = chat_of_transcript(transcript)
        chat.conversation.turns, chat.script = [], transcript.user_messages
        self.switch(call.session, chat)
        yield self.changed(call)

    def _read_transcript(self, call: Call, transcript: Transcript) -> Answer:
        handlers, session, before = self._handlers, call.session, Place.of(call.session)
        chat, line = chat_of_transcript(transcript), transcript.unanswered
        settings = handlers.settings_of(call.settings, 0)
        settings = replace(settings, system_prompt=chat.system_prompt, dtype=handlers.dtype)
        settings = replace(settings, template=handlers.made_with.template)
        keep: End = "end" if call.asked.fields["keep"] == "end" else "beginning"
        total = len(transcript.turns)
        readers = describe_readers(transcript.model, handlers.model_name)
        chat.blurb = " ".join(filter(None, [readers, chat.blurb]))
        too_long = chat.conversation.keep_what_fits(handlers.engine, settings, keep) if total else None
        if too_long is not None:
            cut = describe_cut(total, len(chat.conversation.turns), keep, too_long)
            chat.blurb = " ".join(filter(None, [cut, chat.blurb]))
            line = line if keep == "end" else ""
        self.switch(call.session, chat)
        session.claim(chat)
        try:
            yield replace(self.changed(call), message=line, busy=True)
            for update in self._readings(chat, settings):
                if session.chat is chat:
                    yield update
        except Exception:
            session.release(chat)
            if before.return_to(session, chat):
                yield replace(self.changed(call), busy=False)
            else:
                yield replace(self.shown(call), busy=None if session.running else False)
            raise
        finally:
            session.release(chat)
        yield self._opened(call, chat)

    def _readings(self, chat: Chat, settings: TurnSettings) -> Answer:
        """Read the conversation, and show each turn once it has been read."""
        engine, probe = self._handlers.engine, self._handlers.axis.probe_layer
        for index, _ in chat.conversation.read(engine, settings, probe) if chat.conversation.turns else ():
            updates = Updates(chat.conversation)
            updates.add(turn_op(chat.conversation, index))
            yield PageUpdate(updates.take(), busy=True)

    def _opened(self, call: Call, chat: Chat) -> PageUpdate:
        """A transcript has been read, or the visitor has stopped it or gone on to another conversation."""
        if call.session.chat is not chat:
            return PageUpdate(busy=None if call.session.running else False)
        updates, turns = Updates(chat.conversation), chat.conversation.turns
        if chat.conversation.stopped:
            read = sum(turn.replies[CAPPED].mean is not None for turn in turns)
            updates.add(notice_op(f"The reading was stopped after {read} of {len(turns)} turns."))
        else:
            chat.note_left_out(chat.conversation.left_out)
            if has_unread_reasoning(chat):
                chat.left_out = (*chat.left_out, LEFT_OUT_REASONING)
        updates.add(
            left_out_op(chat.left_out), persist_op(chat, self._handlers.recording(chat, call.settings))
        )
        return PageUpdate(updates.take(), busy=False)


def refuse_watched(chat: Chat) -> Chat:
    """The chat. Raises UserError when it can only be watched."""
    if chat.watch_only:
        raise UserError("This session was recorded with another model, so no reply of it can go on here.")
    return chat
