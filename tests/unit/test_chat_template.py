"""Which tokens belong to which message's content, for the chat templates of the known families."""

from __future__ import annotations

import copy

import pytest

from demo.models.chat_template import render_chat
from demo.utils.errors import UserError

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


def test_a_template_that_rewrites_text_is_refused(model):
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(UserError, match="rewrites message text"):
        render_chat(tokenizer, [{"role": "user", "content": "hello"}])
