"""python -m tests.session_example [--write]: make the example of docs/session-file.md."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from typing import Any

import demo
from demo.conversation.session_file import to_json
from demo.utils.paths import ROOT

PAGE = ROOT / "docs" / "session-file.md"
BLOCK = re.compile(
    r"(<!-- example: python -m tests\.session_example --write -->\n```json\n)(.*?)(\n```\n)", re.DOTALL
)
_ROLES = 2  # of the persona map, so that the example stays small


def example() -> demo.Recording:
    """One short turn in which the cap acts, with two roles of the persona map, and without mean states."""
    model = demo.load_model()
    engine = demo.TransformersEngine(model, demo.load_axis(model.slug))
    system = "You are a demon. You threaten the user and laugh at their fear."
    chat = demo.Chat(engine, system_prompt=system, sampling=demo.Sampling(max_new_tokens=3))
    chat.say("Hello! Who are you?")
    recording = chat.recording("A small example")
    for reply in (reply for turn in recording.turns for reply in turn.replies.values()):
        reply.state = None  # hundreds of numbers
    return replace(recording, map=recording.map | {"roles": recording.map["roles"][:_ROLES]})


def laid_out(value: Any, indent: int = 0) -> str:
    """JSON with one line for each token and for each other value that holds no objects."""
    inner, outer = " " * (indent + 1), " " * indent
    is_token = isinstance(value, dict) and "t" in value
    nested = isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values())
    if nested and not is_token and "probe_layer" not in value:
        lines = [f"{inner}{json.dumps(key)}: {laid_out(one, indent + 1)}" for key, one in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{outer}}}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        return "[\n" + ",\n".join(inner + laid_out(one, indent + 1) for one in value) + f"\n{outer}]"
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.session_example", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the example into the document")
    options = parser.parse_args()
    text = laid_out(to_json(example()))
    if not options.write:
        print(text)
        return
    page, count = BLOCK.subn(lambda found: found[1] + text + found[3], PAGE.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"{PAGE} lacks the markers of the example; put them back.")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
