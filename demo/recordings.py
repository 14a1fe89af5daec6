"""Sessions that come with the program: they can be watched before, and without, any model."""

from __future__ import annotations

from pathlib import Path

from demo.errors import UserError
from demo.session_file import MOST_BYTES, Recording, loads

FOLDER = Path(__file__).resolve().parent.parent / "assets" / "recorded"
ENDING = ".session.json"


def shipped() -> tuple[str, ...]:
    """Their names, in order."""
    return tuple(sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}")))


def open_shipped(name: str) -> Recording:
    """Raises UserError for a name that is not among `shipped`, so that no other file can be asked for."""
    if name not in shipped():
        raise UserError("There is no recorded session of that name; choose one of the list.")
    return open_file(FOLDER / f"{name}{ENDING}")


def open_file(path: Path) -> Recording:
    """Raises UserError for a file that cannot be read as a session."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path} is larger than {MOST_BYTES // 2**20} MiB, so it is no session file.")
        return loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} cannot be read ({type(error).__name__}); give a saved session file."
        ) from error
