"""Sessions that visitors open by address: only files of the folder, whatever the name is."""

from __future__ import annotations

import gradio as gr
import pytest

from demo.conversation.session_file import MOST_BYTES
from demo.page.hosting import sessions_folder_of
from demo.page.recordings import ENDING, FOLDER, open_shipped, recorded_ops
from demo.page.session import Session
from demo.page.shared_sessions import SharedSessions, shared_chat
from demo.page.viewer import Viewer
from demo.utils.errors import UserError

NAME = "menacing-demon"
TEXT = (FOLDER / f"{NAME}{ENDING}").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "sessions"
    (inside / "below").mkdir(parents=True)
    for path in (inside / "demon", inside / "a.b-c_1", inside / "below" / "deep", tmp_path / "outside"):
        path.with_name(path.name + ENDING).write_text(TEXT, encoding="utf-8")
    (inside / "notes.txt").write_text("secret")
    return inside


def test_sessions_directly_in_the_folder_are_found_by_name(folder):
    sessions = SharedSessions(folder)
    assert sessions.text("demon") == TEXT
    assert sessions.text("a.b-c_1") == TEXT


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../outside",
        "..\\outside",
        "%2e%2e%2foutside",
        "below/deep",
        "/etc/passwd",
        "demon\0",
        "demon\n",
        "demon.session.json",
        "notes.txt",
        ".hidden",
        "a..b",
        "dеmon",  # with a Cyrillic letter
        "x" * 5000,
        "missing",
        "link",
        "directory",
    ],
)
def test_no_other_file_can_be_opened_and_the_refusal_is_always_the_same(folder, name):
    (folder / f"link{ENDING}").symlink_to(folder.parent / f"outside{ENDING}")
    (folder / f"directory{ENDING}").mkdir()
    with pytest.raises(UserError, match=r"^There is no session of that name here; check the link\.$"):
        SharedSessions(folder).text(name)


def test_without_the_flag_nothing_is_opened():
    with pytest.raises(UserError, match="opens no sessions by their address"):
        SharedSessions().text("demon")


def test_files_that_are_too_large_or_damaged_are_refused_without_naming_a_path(folder):
    (folder / f"large{ENDING}").write_bytes(b" " * (MOST_BYTES + 1))
    (folder / f"latin{ENDING}").write_bytes(b"\xff\xfe\xff")
    (folder / f"damaged{ENDING}").write_text("{}")
    for name in ("large", "latin", "damaged"):
        with pytest.raises(UserError) as refused:
            shared_chat(name, SharedSessions(folder).text(name), "")
        assert name in str(refused.value) and str(folder) not in str(refused.value)


def test_the_flag_takes_a_folder_only(folder, tmp_path):
    import app

    assert sessions_folder_of(app.parser().parse_args(["--sessions", str(folder)])) == folder.resolve()
    assert sessions_folder_of(app.parser().parse_args([])) is None
    for wrong in (tmp_path / "missing", folder / "notes.txt"):
        with pytest.raises(UserError, match="takes a folder"):
            sessions_folder_of(app.parser().parse_args(["--sessions", str(wrong)]))


def asked(viewer: Viewer, session: Session, name: str) -> str:
    """What the stage gets for a request."""
    values = viewer.dispatch(session, {"do": "shared", "name": name}, None, gr.Request())
    return "".join(update.stage or "" for update in values)


def test_a_visitor_of_a_page_without_a_model_opens_one_and_asking_again_opens_no_second(folder):
    viewer, session = Viewer(None, SharedSessions(folder)), Session()
    viewer.open(session)
    assert '"query":"?session=demon","turns":4' in asked(viewer, session, "demon")
    assert len(session.chats) == 1
    asked(viewer, session, "demon")
    assert len(session.chats) == 1 and session.chat.recording is not None
    assert "There is no session of that name" in asked(viewer, session, "../outside")
    assert "opens no sessions" in asked(Viewer(None), Session(), "demon")


def test_a_session_that_was_continued_is_linked_only_as_far_as_everybody_finds_it(folder):
    session = Session()
    session.show(shared_chat("demon", TEXT, open_shipped(NAME).model))
    turns = session.chat.conversation.turns
    del turns[2:]
    turns.append(turns[0])
    (reset, _) = recorded_ops(session)
    assert reset["meta"]["link"] == {"query": "?session=demon", "turns": 2}
    session.show(session.chat.fork(1))
    assert "link" not in recorded_ops(session)[0]["meta"]
