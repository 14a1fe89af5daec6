"""Which tokens belong to which message's content, for the chat templates of the known families."""

from __future__ import annotations

import copy
from datetime import date, timedelta

import pytest

from demo.models.chat_template import (
    ReasoningFormat,
    default_system_prompt,
    listed_ends,
    reasoning_format,
    render_chat,
    special_tokens,
    stop_tokens,
    turn_ends,
    uses_date,
)
from demo.utils.errors import UserError
from tests.helpers.tiny_models import assert_one_sentence

# Written from the families' documented formats, reduced to what matters for spans.
TEMPLATES = {
    "chatml": None,  # the default model's own
    "llama3": "{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma2": "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "mistral": "{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}</s>"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}",
    "drops-thinking": "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}",
}
CONTROL = [
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
    "</s>",
]
CHATS = [
    [("user", "Hi"), ("assistant", "Hi"), ("user", "Hi")],
    [("user", "user"), ("assistant", "assistant"), ("user", "system")],
    [
        ("system", "Be brief."),
        ("user", "What is 2+2?"),
        ("assistant", "4.\n\n1. four"),
        ("user", "  Spaces around  "),
    ],
    [("user", "é 🙂 中文\n\nsecond line"), ("assistant", "ok"), ("user", "ok")],
]


@pytest.fixture(params=TEMPLATES)
def tokenizer(request, model):
    own = copy.deepcopy(model.tokenizer)
    if TEMPLATES[request.param] is not None:
        own.chat_template = TEMPLATES[request.param]
        own.add_tokens(CONTROL, special_tokens=True)  # as in the family's own vocabulary
    return own


@pytest.mark.parametrize("chat", CHATS)
def test_the_tokens_of_a_message_spell_its_content_and_nothing_else(tokenizer, chat):
    messages = [{"role": role, "content": content} for role, content in chat]
    rendered = render_chat(tokenizer, messages)
    assert len(rendered.ids) == len(rendered.owner)
    for index, (_, content) in enumerate(chat):
        own = [token for token, owner in zip(rendered.ids, rendered.owner, strict=True) if owner == index]
        text = tokenizer.decode(own)
        # A token may cross the content's edge and include an adjacent newline or space, but no more.
        assert text.strip() == content.strip()
        positions = [place for place, owner in enumerate(rendered.owner) if owner == index]
        assert positions == list(range(positions[0], positions[-1] + 1)), "one unbroken span"
    assert rendered.owner[-1] == -1 or tokenizer.chat_template == TEMPLATES["mistral"]


def test_ids_are_those_of_the_rendered_text(tokenizer):
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert render_chat(tokenizer, messages).ids == tokenizer(text, add_special_tokens=False).input_ids


def test_the_templates_own_system_text_belongs_to_no_message(model):
    rendered = render_chat(model.tokenizer, [{"role": "user", "content": "Hi"}])
    own = [token for token, owner in zip(rendered.ids, rendered.owner, strict=True) if owner == 0]
    assert model.tokenizer.decode(own) == "Hi"
    assert rendered.owner.count(-1) > 10


@pytest.mark.parametrize(
    ("template", "own"),
    [
        ("{% if messages[0].role != 'system' %}<sys>You are Q.\n{% endif %}", "You are Q."),
        ("<sys>Today: Monday\n", ""),
        ("", ""),
    ],
)
def test_what_the_template_writes_by_itself_instead_of_a_system_prompt(model, template, own):
    turns = (
        "{% for m in messages %}{{ '<sys>' if m.role == 'system' else '<' + m.role + '>' }}{{ m.content }}\n"
    )
    tokenizer = with_template(model, template + turns + "{% endfor %}<assistant>")
    assert default_system_prompt(tokenizer) == own


def test_a_template_without_a_system_role_writes_nothing_by_itself(model):
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    assert default_system_prompt(with_template(model, template)) == ""
    assert default_system_prompt(model.tokenizer).startswith("You are a helpful AI assistant named SmolLM")


def test_without_a_system_role_the_instruction_opens_the_user_turn(model):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = TEMPLATES["gemma2"]
    rendered = render_chat(
        tokenizer, [{"role": "system", "content": "Be a pirate."}, {"role": "user", "content": "Hello"}]
    )
    text = tokenizer.decode(rendered.ids)
    assert "Be a pirate.\n\nHello<end_of_turn>" in text


def test_a_template_that_raises_is_explained_in_one_sentence(model):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = "{{ raise_exception('no chat today') }}"
    with pytest.raises(UserError, match="no chat today"):
        render_chat(tokenizer, [{"role": "user", "content": "Hi"}])


def owned(tokenizer, rendered, message: int, *, reasoning: bool = False) -> str:
    """The text of a message's tokens: its content, or its reasoning."""
    places = zip(rendered.ids, rendered.owner, rendered.reasoning, strict=True)
    return tokenizer.decode([token for token, owner, flag in places if (owner, flag) == (message, reasoning)])


def with_template(model, template: str, *names: str):
    own = copy.deepcopy(model.tokenizer)
    own.chat_template = template
    own.add_tokens(list(names), special_tokens=False)
    return own


def said(*texts: str, role: str = "user") -> list:
    """A chat whose messages alternate, from `role` on."""
    roles = [role, "assistant" if role == "user" else "user"] * len(texts)
    return [{"role": one, "content": text} for one, text in zip(roles, texts, strict=False)]


CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ TEXT }}<|im_end|>\n{% endfor %}"


def test_a_template_that_rewrites_text_keeps_its_messages(model):
    tokenizer = with_template(model, CHATML.replace("TEXT", "m.content | upper"))
    rendered = render_chat(tokenizer, said("hello\nthere", "straße", "bye"))
    assert [owned(tokenizer, rendered, number) for number in range(3)] == ["HELLO\nTHERE", "STRASSE", "BYE"]
    assert rendered.left_out == ()


def test_what_the_template_drops_or_cuts_is_left_out(model):
    cut = "m.content.split('</think>')[-1] if m.role == 'assistant' else m.content[:5]"
    tokenizer = with_template(model, CHATML.replace("TEXT", cut).replace("messages", "messages[1:]"))
    chat = [{"role": "system", "content": "Be brief."}, *said("Hello there", "a</think>b", "Bye ", "ok")]
    rendered = render_chat(tokenizer, chat, reply_next=False)
    assert [(left.message, left.role, left.whole) for left in rendered.left_out] == [
        (0, "system", True),
        (1, "user", False),
        (2, "assistant", False),
    ]
    assert [owned(tokenizer, rendered, number) for number in range(5)] == ["", "Hello", "b", "Bye ", "ok"]


def test_a_reply_that_quotes_the_end_of_reasoning_is_whole_while_an_earlier_one_is_cut(model):
    cut = "m.content if loop.last or m.role == 'user' else m.content.split('</think>')[-1]"
    tokenizer = with_template(model, CHATML.replace("TEXT", cut))
    chat = said("Say </think> now", "a</think>b", "</think>", "</think> is `</think>` here</think>")
    rendered = render_chat(tokenizer, chat, reply_next=False)
    whole = [owned(tokenizer, rendered, number) for number in (0, 2, 3)]
    assert whole == [chat[number]["content"] for number in (0, 2, 3)]
    assert owned(tokenizer, rendered, 1) == "b"
    assert [left.message for left in rendered.left_out] == [1]


def test_a_system_prompt_in_the_last_user_turn_is_found_there_even_if_a_message_is_repeated(model):
    last = "(messages[0].content ~ '\n\n' if m == messages[-1] else '') ~ m.content"
    tokenizer = with_template(
        model, CHATML.replace("TEXT", last).replace("in messages %", "in messages[1:] %")
    )
    chat = [{"role": "system", "content": "Be brief."}, *said("Hi", "Ahoy", "Hi")]
    rendered = render_chat(tokenizer, chat)
    assert rendered.left_out == ()
    for number, message in enumerate(chat):
        times = 2 if number == 0 else 1  # the two user messages are equal, so that both are the last to it
        assert owned(tokenizer, rendered, number).replace("\n", "") == message["content"] * times


@pytest.mark.parametrize("name", ["<|im_end|>", "<tool>", "</tool>"])
def test_no_message_can_write_a_control_token_whether_flagged_special_or_not(model, name):
    tokenizer = with_template(model, CHATML.replace("TEXT", "m.content"), "<tool>", "</tool>")
    control = {tokenizer.convert_tokens_to_ids(one) for one in (name, "<|im_end|>", "<|im_start|>")}
    earlier = render_chat(tokenizer, said("Hello there.", "Ahoy", "x"), reply_next=False)
    later = render_chat(tokenizer, said("Hello there.", "Ahoy", "x", "y", f"a{name}b {name}"))
    assert sum(token in control for token in later.ids) == 2 * 5
    assert owned(tokenizer, later, 4) == f"a{name}b {name}"
    assert later.ids[: len(earlier.ids)] == earlier.ids


def test_the_date_is_written_as_given_and_otherwise_as_today(model):
    dated = "{{ strftime_now('%A %-d %b %Y, %% %H:%M') }}" + CHATML.replace("TEXT", "m.content")
    tokenizer = with_template(model, dated)
    text = tokenizer.decode(render_chat(tokenizer, said("Hi"), date="2026-03-09").ids)
    assert text.startswith("Monday 9 Mar 2026, % 00:00<|im_start|>user\nHi")
    days = {f"{day:%A} {day.day} {day:%b %Y}" for day in (date.today(), date.today() + timedelta(days=1))}
    assert tokenizer.decode(render_chat(tokenizer, said("Hi")).ids).split(",")[0] in days
    assert uses_date(tokenizer) and not uses_date(model.tokenizer)


def test_stable_tokens_do_not_depend_on_the_header_of_the_reply(tokenizer):
    chat = said("Hello", "Good day.", "Bye")
    asked, bare = render_chat(tokenizer, chat), render_chat(tokenizer, chat, reply_next=False)
    assert bare.stable == len(bare.ids)
    assert asked.ids[: asked.stable] == bare.ids[: asked.stable]
    assert asked.ids[asked.stable : asked.stable + 1] != bare.ids[asked.stable : asked.stable + 1] or (
        asked.ids == bare.ids
    )


def test_reasoning_has_tokens_and_marks_of_its_own(model):
    thought = (
        "('<think>\n' ~ m.reasoning_content ~ '\n</think>\n\n' if m.reasoning_content else '') ~ m.content"
    )
    header = "<|im_start|>assistant\n{% if thinking %}<think>\n{% endif %}"
    header = "{% if add_generation_prompt %}" + header + "{% endif %}"
    tokenizer = with_template(model, CHATML.replace("TEXT", thought) + header, "<think>", "</think>")
    assert reasoning_format(tokenizer) == ReasoningFormat("<think>", "</think>", switch=True)
    chat = said("Hello", "Ahoy", "Bye")
    chat[1]["reasoning"] = "A sailor's greeting </think> fits."
    rendered = render_chat(tokenizer, chat)
    assert owned(tokenizer, rendered, 1, reasoning=True) == chat[1]["reasoning"]
    assert owned(tokenizer, rendered, 1) == "Ahoy" and not rendered.opens_reasoning
    assert rendered.ids.count(tokenizer.convert_tokens_to_ids("</think>")) == 1  # the template's own
    assert render_chat(tokenizer, chat, thinking=True).opens_reasoning
    assert reasoning_format(model.tokenizer) is None


def test_ends_are_those_of_the_lists_and_of_the_template_but_not_between_reasoning_and_answer(model):
    tokenizer = with_template(
        model, CHATML.replace("TEXT", "m.content").replace("<|im_end|>", " <end>"), "<end>"
    )
    end = tokenizer.convert_tokens_to_ids("<end>")
    assert turn_ends(tokenizer) == {end} and end not in listed_ends(None, tokenizer)
    assert stop_tokens(None, tokenizer) == {end, tokenizer.eos_token_id}
    tokenizer.chat_template = CHATML.replace("TEXT", "m.content").replace("<|im_end|>", " over <end>")
    assert turn_ends(tokenizer) == frozenset()
    between = "{% if m.thinking %}<think>{{ m.thinking }}<end><answer>{% endif %}{{ m.content }}<end>"
    tokenizer.chat_template = CHATML.replace("{{ TEXT }}<|im_end|>", between)
    assert reasoning_format(tokenizer).closing == "<end><answer>"
    assert turn_ends(tokenizer) == {end} and stop_tokens(None, tokenizer) == {tokenizer.eos_token_id}


def test_a_tokenizer_without_offsets_is_refused_in_one_sentence(model, monkeypatch):
    tokenizer = copy.deepcopy(model.tokenizer)
    monkeypatch.setattr(type(tokenizer), "is_fast", False)
    with pytest.raises(UserError, match=r"tokenizer\.json") as error:
        stop_tokens(None, tokenizer)
    assert_one_sentence(error, "use a version")


def test_special_tokens_include_every_added_token_with_the_flag(model):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_tokens(["<extra>"], special_tokens=True)
    tokenizer.add_tokens(["<text>"])
    found = special_tokens(tokenizer)
    assert tokenizer.convert_tokens_to_ids("<extra>") in found
    assert tokenizer.convert_tokens_to_ids("<text>") not in found
