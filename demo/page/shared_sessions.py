"""Session files that whoever runs the page lets visitors open by address: ?session=NAME (--sessions FOLDER).

A name comes from a visitor, so it may be anything. Only files directly in the folder can be opened, and a
refusal says nothing about what else is on the disk.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from demo.conversation.session_file import MOST_BYTES, Recording, loads
from demo.page.recordings import ENDING, chat_of
from demo.page.session import Chat
from demo.utils.errors import UserError

# Letters, digits, underscores and hyphens, with single dots between them.
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LONGEST_NAME = 100

_OFF = "This page opens no sessions by their address; ask whoever runs it for the session file."
_MISSING = "There is no session of that name here; check the link."


@dataclass(frozen=True, slots=True)
class SharedSessions:
    """The session files of one folder.

    Attributes:
        folder: None for no sharing, the default.
    """

    folder: Path | None = None

    def text(self, name: str) -> str:
        """The content of NAME.session.json. Raises UserError."""
        if self.folder is None:
            raise UserError(_OFF)
        if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
            raise UserError(_MISSING)
        path = self.folder / f"{name}{ENDING}"
        try:
            # A symbolic link would lead out of the folder.
            if path.is_symlink() or not path.is_file():
                raise UserError(_MISSING)
            if path.stat().st_size > MOST_BYTES:
                raise UserError(
                    f"The session {name} is larger than {MOST_BYTES // 2**20} MiB, so it stays closed."
                )
            return path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The session {name} cannot be read; tell whoever runs this page.") from error


def shared_chat(name: str, text: str, model_name: str) -> Chat:
    """A shared session as a conversation, with an id by which a tab finds it again. Raises UserError.

    Args:
        text: the content of the file.
        model_name: see `chat_of`.
    """
    chat = chat_of(_loaded(name, text), model_name)
    chat.id = hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()[:16]
    chat.address = f"?session={name}"
    return chat


def _loaded(name: str, text: str) -> Recording:
    try:
        return loads(text)
    except UserError as error:
        raise UserError(f"The session {name} is damaged; tell whoever runs this page.") from error
