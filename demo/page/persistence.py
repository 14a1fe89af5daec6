"""The browser keeps its conversations, in the storage of its own tab: a reload or another server can have them back.

After every turn the stage is told what is new, as parts of a session file; static/stage_keep.js puts them together and hands them back.
"""

from __future__ import annotations

import re
from dataclasses import replace

from demo.conversation.session_file import Recording, from_json, parsed, to_json, turn_json
from demo.page.recordings import checked_text
from demo.page.session import MOST_TALKS, Session, Talk
from demo.page.updates import Op
from demo.utils.errors import UserError


def keep_op(talk: Talk, recording: Recording, start: int = 0) -> Op:
    """The conversation from turn `start` on; the browser has what comes before."""
    head = to_json(replace(recording, turns=[], map=recording.map if talk.recording else {}))
    follows = {
        "script": talk.script,
        "said": talk.said,
        "care": talk.care,
        "recorded": talk.recording is not None,
    }
    turns = [turn_json(turn) for turn in talk.conversation.turns[start:]]
    return {"op": "keep", "talk": talk.id, "head": head | follows, "from": start, "turns": turns}


def restore_chats(session: Session, kept: object, current: object, model_name: str) -> None:
    """Show what a browser has kept: `kept` holds one text per conversation. Raises UserError, and then nothing has changed."""
    if not isinstance(kept, list) or not 1 <= len(kept) <= MOST_TALKS:
        raise UserError("What the browser kept is no list of conversations; start a new chat.")
    talks = [_talk(checked_text(text), model_name) for text in kept]
    if len({talk.id for talk in (*talks, *session.talks)}) < len(talks) + len(session.talks):
        raise UserError("What the browser kept is here already.")
    for talk in talks:
        session.show(talk)
    session.show(talks[current if isinstance(current, int) and 0 <= current < len(talks) else -1])


def _talk(text: str, model_name: str) -> Talk:
    more = parsed(text)
    recording = from_json(more)
    script, said, care = more.get("script", []), more.get("said", 0), more.get("care", "")
    texts = [care, *script] if isinstance(script, list) else [None]
    if not isinstance(said, int) or not all(isinstance(one, str) for one in texts):
        raise UserError("What the browser kept is damaged; start a new chat.")
    other_model = recording.model != model_name
    talk = Talk(
        title=recording.title,
        blurb=recording.blurb,
        care=care,
        system_prompt=recording.system_prompt,
        script=tuple(script),
        said=min(max(said, 0), len(script)),
        recording=recording if other_model or more.get("recorded") is True else None,
        watch_only=other_model,
    )
    if re.fullmatch("[0-9a-f]{16}", str(more.get("id"))):
        talk.id = more["id"]
    talk.conversation.turns = list(recording.turns)
    return talk
