"""Chats from elsewhere: the shapes in which programs write them, and what is refused.

The chats here are invented; each has the structure of one program's files.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from demo.conversation.session_file import Recording, dumps
from demo.conversation.transcripts import TranscriptFile, parse_file, parse_transcript
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError

USER = {"role": "user", "content": "Is the ridge safe?"}
REPLY = {"role": "assistant", "content": "Not in fog."}
TURN = ("Is the ridge safe?", "Not in fog.")


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def node(role: str, text: str, parent: str | None, **more: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    return {"parent": parent, "message": {"author": {"role": role}, "content": content, **more}}


TREE = {
    "title": "Ridge",
    "current_node": "c",
    "mapping": {
        "root": {"parent": None, "message": None},
        "s": node("system", "", "root", metadata={"is_visually_hidden_from_conversation": True}),
        "a": node("user", TURN[0], "s"),
        "b": {
            "parent": "a",
            "message": {
                "author": {"role": "assistant"},
                "recipient": "all",
                "content": {
                    "content_type": "thoughts",
                    "thoughts": [{"summary": "", "content": "Fog is wet."}],
                },
            },
        },
        "c": node("assistant", TURN[1], "b"),
        "d": node("assistant", "An answer that was replaced.", "a"),
    },
}
VERSIONED = [
    {
        "versions": [
            {"role": "user", "content": [text_part("An earlier wording")]},
            {"role": "user", "content": [text_part(TURN[0])]},
        ],
        "currentlySelected": 1,
    },
    {
        "versions": [
            {
                "type": "multiStep",
                "role": "assistant",
                "steps": [
                    {
                        "type": "contentBlock",
                        "style": {"type": "thinking"},
                        "content": [text_part("Fog is wet.")],
                    },
                    {"type": "contentBlock", "content": [text_part(TURN[1])]},
                    {"type": "debugInfoBlock", "debugInfo": "tokens: 9"},
                ],
            }
        ],
        "currentlySelected": 0,
    },
]
FOLDED = (
    '<details type="reasoning" done="true" duration="2">\n<summary>Thought for 2 seconds</summary>\n'
    "&gt; Fog is wet.\n</details>\n"
).replace("&gt;", ">")

# Each is the same chat of one turn.
SAME_CHAT: dict[str, Any] = {
    "messages": {"messages": [USER, REPLY]},
    "conversation": {"model": "m", "turns": 7, "conversation": [USER, REPLY]},
    "from and value": [
        {"id": "x", "conversations": [{"from": "human", "value": TURN[0]}, {"from": "gpt", "value": TURN[1]}]}
    ],
    "sender and text": {
        "uuid": "u",
        "name": "Ridge",
        "chat_messages": [
            {"uuid": "1", "sender": "human", "text": TURN[0], "content": [], "attachments": [], "files": []},
            {"uuid": "2", "sender": "assistant", "text": "", "content": [text_part(TURN[1])]},
        ],
    },
    "a tree": [TREE],
    "a history with parents": [
        {
            "title": "Ridge",
            "chat": {
                "models": ["m"],
                "history": {
                    "currentId": "2",
                    "messages": {
                        "1": {"id": "1", "parentId": None, **USER},
                        "2": {"id": "2", "parentId": "1", "role": "assistant", "content": FOLDED + TURN[1]},
                        "3": {"id": "3", "parentId": "1", "role": "assistant", "content": "Replaced."},
                    },
                },
            },
        }
    ],
    "a list with branches": {
        "messages": [
            {
                "messageId": "1",
                "parentMessageId": "0",
                "isCreatedByUser": True,
                "sender": "User",
                "text": TURN[0],
            },
            {
                "messageId": "2",
                "parentMessageId": "1",
                "isCreatedByUser": False,
                "sender": "M",
                "text": "Old.",
            },
            {
                "messageId": "3",
                "parentMessageId": "1",
                "isCreatedByUser": False,
                "sender": "M",
                "text": TURN[1],
            },
        ]
    },
    "nested messages": {"messages": [{**USER, "children": [{**REPLY, "children": []}]}]},
    "versions": {"name": "Ridge", "messages": VERSIONED},
    "parts": {
        "contents": [
            {"role": "user", "parts": [{"text": TURN[0]}]},
            {"role": "model", "parts": [{"text": "Fog is wet.", "thought": True}, {"text": TURN[1]}]},
        ]
    },
    "parts with the reply beside them": {
        "request": {"contents": [{"role": "user", "parts": [{"text": TURN[0]}]}]},
        "response": {"candidates": [{"content": {"role": "model", "parts": [{"text": TURN[1]}]}}]},
    },
    "chunks": {
        "runSettings": {"temperature": 1},
        "chunkedPrompt": {
            "chunks": [
                {"role": "user", "text": TURN[0]},
                {"role": "model", "text": "Fog is wet.", "isThought": True},
                {"role": "model", "text": TURN[1]},
            ]
        },
    },
    "blocks": {
        "messages": [
            {"role": "user", "content": [text_part("Is the "), text_part("ridge safe?")]},
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "Fog is wet."}, text_part(TURN[1])],
            },
        ]
    },
    "items of a response": {
        "model": "m",
        "input": TURN[0],
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Fog is wet."}]},
            {
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": TURN[1], "annotations": []}],
            },
        ],
    },
    "choices beside the request": {"messages": [USER], "choices": [{"index": 0, "message": REPLY}]},
    "a log of request and response": {
        "request": {"body": {"messages": [USER]}},
        "response": {"status_code": 200, "body": {"choices": [{"message": REPLY}]}},
    },
    "the reply as blocks": {
        "request": {"messages": [USER]},
        "response": {"type": "message", "role": "assistant", "content": [text_part(TURN[1])]},
    },
    "a reply beside the messages": {"model": "m", "messages": [USER], "message": REPLY, "done": True},
    "prompt and completion": {"prompt": TURN[0], "completion": TURN[1]},
    "prompt and completion as messages": {"prompt": [USER], "completion": [REPLY]},
    "instruction and response": {"instruction": TURN[0], "input": "", "output": TURN[1]},
    "question and answer": {"question": TURN[0], "answer": TURN[1]},
    "a chosen reply": {"prompt": TURN[0], "chosen": [USER, REPLY], "rejected": [USER, REPLY]},
    "pairs": [list(TURN)],
    "internal pairs": {"internal": [list(TURN)], "visible": [list(TURN)]},
    "an earlier history": {
        "chat_history": [{"role": "USER", "message": TURN[0]}],
        "text": "",
        "response": TURN[1],
    },
    "a type for a role": [
        {"type": "human", "content": TURN[0]},
        {"type": "ai", "data": {"content": TURN[1]}},
    ],
    "text with annotations": {
        "object": "list",
        "data": [
            {
                **REPLY,
                "created_at": 2,
                "content": [{"type": "text", "text": {"value": TURN[1], "annotations": []}}],
            },
            {
                **USER,
                "created_at": 1,
                "content": [{"type": "text", "text": {"value": TURN[0], "annotations": []}}],
            },
        ],
    },
    "fragments": {
        "current_node": "2",
        "mapping": {
            "1": {"parent": None, "message": {"fragments": [{"type": "REQUEST", "content": TURN[0]}]}},
            "2": {
                "parent": "1",
                "message": {
                    "files": [],
                    "fragments": [
                        {"type": "THINK", "content": "Fog is wet."},
                        {"type": "RESPONSE", "content": TURN[1]},
                    ],
                },
            },
        },
    },
    "wrapped lines": [{"type": "user", "message": USER}, {"type": "assistant", "message": REPLY}],
    "responses": {
        "conversations": [
            {
                "conversation": {"title": "Ridge"},
                "responses": [
                    {"response": {"sender": "human", "message": TURN[0]}},
                    {"response": {"sender": "ASSISTANT", "message": TURN[1]}},
                ],
            }
        ]
    },
    "flags for a role": [
        {"user_name": "Ann", "chat_metadata": {}},
        {"name": "Ann", "is_user": True, "mes": TURN[0]},
        {"name": "Guide", "is_user": False, "mes": TURN[1]},
    ],
}


@pytest.mark.parametrize("data", SAME_CHAT.values(), ids=SAME_CHAT)
def test_a_chat_is_read_in_the_shape_of_every_program(data):
    found = parse_transcript(json.dumps(data))
    assert found.turns == [TURN] and not found.unanswered and not found.system_prompt
    if "Fog is wet." in json.dumps(data):
        assert found.reasoning == ("Fog is wet.",)
    lines = "\n".join(map(json.dumps, data if isinstance(data, list) and len(data) > 1 else [data]))
    assert parse_transcript("\ufeff" + lines).turns == [TURN], "the same as lines, with a byte-order mark"


SYSTEM = "Speak plainly."


@pytest.mark.parametrize(
    "data",
    [
        {"system": SYSTEM, "messages": [USER, REPLY]},
        {"system": [text_part(SYSTEM)], "messages": [USER, REPLY]},
        {"system": SYSTEM, "messages": [{"role": "system", "content": SYSTEM}, USER, REPLY]},
        {"instructions": SYSTEM, "input": [USER], "output": [REPLY]},
        {"messages": [{"role": "developer", "content": SYSTEM}, USER, REPLY]},
        {"systemInstruction": {"parts": [{"text": SYSTEM}]}, "contents": [USER, REPLY]},
        {"systemInstruction": {"text": SYSTEM}, "chunkedPrompt": {"chunks": [USER, REPLY]}},
        {"systemPrompt": SYSTEM, "messages": VERSIONED},
        {
            "perChatPredictionConfig": {"fields": [{"key": "llm.prediction.systemPrompt", "value": SYSTEM}]},
            "messages": VERSIONED,
        },
        {"chat": {"params": {"system": SYSTEM}, "messages": [USER, REPLY]}},
        {"preprompt": SYSTEM, "messages": [USER, REPLY]},
        {"request": {"system": SYSTEM, "messages": [USER]}, "response": REPLY},
        {"system_prompt": SYSTEM, "question": TURN[0], "response": TURN[1]},
    ],
)
def test_a_system_prompt_that_stands_beside_the_messages_is_kept(data):
    found = parse_transcript(json.dumps(data))
    assert found.system_prompt == SYSTEM and found.turns == [TURN]


def with_part(part: dict[str, Any]) -> str:
    return json.dumps([USER, {"role": "assistant", "content": [text_part("Look:"), part]}])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            with_part({"type": "image_url", "image_url": {"url": "x"}}),
            "Message 2 holds an image (“image_url”)",
        ),
        (with_part({"type": "input_image", "image_url": "x"}), "an image (“input_image”)"),
        (with_part({"type": "input_file", "file_id": "x"}), "a file"),
        (with_part({"type": "document", "source": {}}), "a file"),
        (with_part({"type": "input_audio", "input_audio": {}}), "audio"),
        (with_part({"type": "tool_use", "name": "look", "input": {}}), "a tool call (“tool_use”)"),
        (with_part({"type": "tool_result", "content": "wet"}), "a tool's result (“tool_result”)"),
        (with_part({"type": "hologram", "text": "x"}), "a part that is not text (“hologram”)"),
        (with_part({"inlineData": {"mimeType": "image/png"}}), "an image or another file (“inlineData”)"),
        (with_part({"functionCall": {"name": "look"}}), "a tool call (“functionCall”)"),
        (with_part({"toolUse": {"name": "look"}}), "a tool call"),
        (json.dumps([USER, {**REPLY, "tool_calls": [{"id": "1"}]}]), "a tool call (“tool_calls”)"),
        (json.dumps([USER, {"role": "tool", "content": "wet"}]), "Message 2 holds a tool's result"),
        (json.dumps([{**USER, "images": ["x"]}, REPLY]), "Message 1 holds an image"),
        (json.dumps([{**USER, "attachments": [{"file_name": "a.txt"}]}, REPLY]), "Message 1 holds a file"),
        (json.dumps([{**USER, "metadata": {"attachments": [1]}}, REPLY]), "Message 1 holds a file"),
        (json.dumps([USER, {**REPLY, "recipient": "python"}]), "a tool call (“python”)"),
        (json.dumps({"input": [USER, {"type": "function_call", "name": "look"}]}), "a tool call"),
        (json.dumps({"input": [USER, {"type": "web_search_call", "id": "x"}]}), "a tool call"),
        (
            json.dumps({"system": [{"type": "image", "source": {}}], "messages": [USER, REPLY]}),
            "The system prompt",
        ),
        (json.dumps([USER, {"role": "assistant", "content": None}]), "Message 2 holds no text"),
        (json.dumps([REPLY]), "does not begin with a user message"),
        (json.dumps([USER, {"role": "narrator", "content": "x"}]), "Message 2 has no role"),
        (json.dumps([USER, REPLY]) + "\n{broken", "not JSON (see line 2)"),
        (json.dumps([USER]) + "]", "not JSON"),
        (json.dumps({"error": {"message": "Invalid key", "code": 401}}), "No messages found"),
        (json.dumps({"format": "other", "version": 1, "turns": []}), "No messages found"),
        ('{"a":' * 900 + "1" + "}" * 900, "No messages found"),
        ('{"messages": [{"role": "user", "content": ' + "[" * 900 + "]" * 900 + "}]}", "too deeply"),
    ],
)
def test_what_is_not_text_is_refused_by_name_and_never_dropped(text, words):
    with pytest.raises(UserError) as error:
        parse_transcript(text)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_of_several_chats_the_chosen_one_is_read_and_named():
    chats = [
        {"title": "Ridge", "messages": [USER, REPLY]},
        {"messages": [{"role": "user", "content": "Name a\nriver. " + "x" * 99}, REPLY]},
        {"messages": [{**USER, "images": ["x"]}, REPLY]},
    ]
    for text in (json.dumps(chats), "\n".join(map(json.dumps, chats)), json.dumps({"conversations": chats})):
        file = parse_file(text)
        assert isinstance(file, TranscriptFile)
        first, second, third = file.titles(9)
        assert first == "Ridge" and second.startswith("Name a river. xxx") and len(second) == 60
        assert file.titles(2) == [first, second]
        assert third == "(no text)"
        assert file.transcript(0).notes == ("This is chat 1 of 3 in its file.",)
        assert file.transcript(1).user_messages[0].startswith("Name a\nriver.")
        with pytest.raises(UserError, match="an image"):
            file.transcript(2)
        with pytest.raises(UserError, match="holds 3 chats"):
            file.transcript(3)


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (TREE, "Only the current branch of the chat is read."),
        ({"messages": [USER], "choices": [{"message": REPLY}] * 3}, "The first of 3 replies is read."),
        ({"prompt": TURN[0], "chosen": TURN[1], "rejected": "Yes."}, "The chosen reply is read"),
        ({"tools": [{"name": "look"}], "messages": [USER, REPLY]}, "The descriptions of tools are left out."),
        (
            [
                USER,
                {
                    "role": "assistant",
                    "content": [{"type": "redacted_thinking", "data": "x"}, text_part("No.")],
                },
            ],
            "Encrypted reasoning is left out.",
        ),
        (
            {
                "mapping": {
                    "0": {
                        "message": {
                            "author": {"role": "user"},
                            "content": {"content_type": "user_editable_context", "user_profile": "A hiker."},
                        }
                    },
                    "1": node("user", TURN[0], "0"),
                    "2": node("assistant", TURN[1], "1"),
                }
            },
            "Messages that the program does not show are left out.",
        ),
    ],
)
def test_what_is_left_out_is_said(data, note):
    found = parse_transcript(json.dumps(data))
    assert len(found.turns) == 1 and any(one.startswith(note) for one in found.notes)


def test_a_session_file_is_known_by_its_structure():
    recording = Recording("m", [], PlotMarks(1))
    saved = json.loads(dumps(recording))
    late = dict(reversed(saved.items())) | {"blurb": "x" * 500}
    late["format"] = late.pop("format")
    for text in (dumps(recording), json.dumps(late, indent=9), "\ufeff" + dumps(recording)):
        found = parse_file(text)
        assert isinstance(found, Recording) and found.model == "m"
    quoting = [{"role": "user", "content": "What is persona-drift-session?"}, REPLY]
    assert parse_transcript(json.dumps(quoting)).turns[0][1] == TURN[1]
    with pytest.raises(UserError, match="session file"):
        parse_transcript(dumps(recording))


def test_consecutive_messages_of_one_role_are_one_and_a_last_question_stays_open():
    chat = [
        USER,
        REPLY,
        {"role": "assistant", "content": "Wait for it to lift."},
        {**USER, "content": "Now?"},
    ]
    found = parse_transcript(json.dumps(chat))
    assert found.turns == [(TURN[0], "Not in fog.\n\nWait for it to lift.")] and found.unanswered == "Now?"
