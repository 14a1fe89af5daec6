"""Chats from elsewhere as conversations on the page, and what the page says about what it does not read."""

from __future__ import annotations

from dataclasses import dataclass

from demo.conversation.conversation import End
from demo.conversation.transcripts import Transcript, TranscriptFile
from demo.engine.protocol import TooLongError
from demo.page.session import Chat, Session
from demo.page.stage.protocol import Operation, operation

# Of more chats in a file, only so many are offered.
MOST_LISTED = 1000

# Joins the phrases of `left_out_op`.
LEFT_OUT_REASONING = "the reasoning before earlier replies, which is shown but not read"


@dataclass(frozen=True)
class Place:
    """What a visitor sees before a transcript is opened. One that cannot be read leaves nothing behind."""

    chats: tuple[Chat, ...]
    current: int

    @classmethod
    def of(cls, session: Session) -> Place:
        """The conversations of a session now."""
        return cls(tuple(session.chats), session.current)

    def return_to(self, session: Session, failed: Chat) -> bool:
        """Close the conversation that failed, and show the one from before again.

        Returns:
            False if the visitor has gone on to another conversation, which stays.
        """
        if session.chat is failed:
            session.chats, session.current = list(self.chats), self.current
            return True
        if failed in session.chats:
            session.close(session.chats.index(failed))
        return False


def chat_of_transcript(transcript: Transcript) -> Chat:
    """A conversation of the chat's unread turns."""
    named = f"Transcript of {transcript.model}" if transcript.model else "Transcript"
    chat = Chat(title=transcript.title or named, system_prompt=transcript.system_prompt)
    chat.conversation.turns = transcript.unread_turns()
    chat.blurb = " ".join(transcript.notes)
    return chat


def describe_readers(written_by: str, read_by: str) -> str:
    """Whose words a transcript holds, and whose projections the page shows of them."""
    return f"Written by {written_by or 'a model that the file does not name'}, read by {read_by}."


def describe_cut(total: int, kept: int, keep: End, error: TooLongError) -> str:
    """What is read of a chat that does not fit the context window, and how to read the other end."""
    first = 1 if keep == "beginning" else total - kept + 1
    which = f"Turn {first} of {total} is" if kept == 1 else f"Turns {first}–{first + kept - 1} of {total} are"
    here = "" if first == 1 else f", here as turns 1–{kept}" if kept > 1 else ", here as turn 1"
    other = "end" if keep == "beginning" else "beginning"
    return (
        f"{which} read{here}; the rest does not fit the model's context of {error.context:,} tokens. "
        f"To read the {other} instead, press Open… again, which still holds the text."
    )


def chats_op(file: TranscriptFile) -> Operation:
    """Ask the visitor which of the chats in a file to open."""
    return operation("chats", titles=file.titles(MOST_LISTED), count=len(file.chats))


def has_unread_reasoning(chat: Chat) -> bool:
    """Whether a reply has reasoning that the chat template left out of the reading."""
    return any(
        token.reasoning and token.before is None
        for turn in chat.conversation.turns
        for reply in turn.replies.values()
        for token in reply.tokens
    )
