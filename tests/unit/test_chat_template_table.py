"""The table of chat templates, and chats of any content with templates made of small blocks."""

from __future__ import annotations

import json
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from demo.bench import templates
from demo.bench.small_tokenizers import KINDS, SPELLING
from demo.bench.templates import Case, make_tokenizer, read_cases, try_all, try_case
from demo.models import loading
from demo.models.chat_template import render_chat

CASES = read_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_template_works_on_tokenizers_of_every_kind(case: Case):
    assert templates.failures(try_all([case])) == []


@pytest.mark.parametrize("name", ["chatml", "qwen3", "phi3", "mistral_nemo"])
def test_a_template_works_on_the_default_models_tokenizer(name: str, model):
    case = next(case for case in CASES if case.name == name)
    tokenizer = make_tokenizer(case, templates.DEFAULT_KIND, model.tokenizer)
    assert templates.failures({name: try_case(case, tokenizer, True)}) == []


def test_the_command_fails_when_a_row_is_wrong(monkeypatch, tmp_path, capsys):
    case = next(case for case in CASES if case.name == "chatml")
    wrong = Case(**{**vars(case), "ends": ["<|nonsense|>"]})
    monkeypatch.setattr(templates, "KINDS", KINDS[:1])
    monkeypatch.setattr(loading, "read_facts", lambda spec: SimpleNamespace(tokenizer=None))
    for entry, status in ((case, 0), (wrong, 1)):
        monkeypatch.setattr(templates, "read_cases", lambda entry=entry: [entry])
        files = {flag: tmp_path / f"{status}.{flag}" for flag in ("json", "write")}
        arguments = [text for flag, path in files.items() for text in (f"--{flag}", str(path))]
        assert templates.main(arguments) == status
        assert ("ends learnt" in capsys.readouterr().out.splitlines()[-1]) == (status == 1)
        assert list(json.loads(files["json"].read_text())["chatml"]) == list(templates.COLUMNS)
        assert "| `chatml` |" in files["write"].read_text(encoding="utf-8")


def test_there_are_many_templates_each_with_a_file_and_a_behaviour_of_its_own():
    assert len(CASES) >= 28 and len({case.does for case in CASES}) == len(CASES)
    assert {case.name for case in CASES} == {path.stem for path in templates.FOLDER.glob("*.jinja")}


@pytest.mark.parametrize("kind", sorted(SPELLING))
def test_whitespace_at_the_edges_of_a_content_is_the_messages(kind: str):
    tokenizer = make_tokenizer(next(case for case in CASES if case.name == "phi4"), kind)
    for text in ("soup  ", "  \n soup", "\n", " ", "soup \n\n bread\n"):
        rendered = render_chat(tokenizer, [{"role": "user", "content": text}])
        own = [token for token, owner in zip(rendered.ids, rendered.owner, strict=True) if owner == 0]
        said = str(tokenizer.decode(own, skip_special_tokens=False))
        # These tokenizers, but for the first, write a space of their own before a text.
        assert said == text or (kind == "sentencepiece BPE" and said == f" {text}")


# Small blocks of templates. Each writes every content, whole but for whitespace at its edges.
HEADERS = ("<|im_start|>{role}\\n", "{role}: ", "[{role}] ")
FILTERS = ("{0}", "{0} | trim", "{0}.strip('\\n')", "{0}.rstrip()", "' ' + {0} + ' '")
CLOSINGS = ("<|im_end|>\\n", "\\n", " <|im_end|>", "\\n\\n")
TEMPLATES = [
    "{% for m in messages %}"
    + "{{ '" + header.replace("{role}", "' + m.role + '") + "' + (" + written.format("m.content") + ") + '"
    + closing + "' }}{% endfor %}{% if add_generation_prompt %}{{ '" + header.replace("{role}", "assistant")
    + "' }}{% endif %}"
    for header, written, closing in product(HEADERS, FILTERS, CLOSINGS)
]  # fmt: skip
WORDS = ("soup", " ", "\n", "\t", "é", "🙂", "\u3000", "1.", "'", '"', "user: ", "assistant", "</think>")
NAMES = ("<|im_end|>", "<|im_start|>user\n", "<|im", "_end|>", "\U000f0003", "\ue100")
CONTENTS = st.lists(st.sampled_from(WORDS + NAMES), max_size=6).map("".join)


@pytest.fixture(scope="module", params=sorted(SPELLING))
def spelling(request) -> Any:
    """A tokenizer that can spell any text."""
    return make_tokenizer(next(case for case in CASES if case.name == "chatml"), request.param)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(template=st.sampled_from(TEMPLATES), texts=st.lists(CONTENTS, min_size=1, max_size=4))
def test_the_tokens_of_a_message_spell_its_content_whatever_it_is(spelling, template, texts):
    spelling.chat_template = template
    roles = ["user", "assistant"] * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    rendered = render_chat(spelling, messages)
    for number, text in enumerate(texts):
        own = [token for token, owner in zip(rendered.ids, rendered.owner, strict=True) if owner == number]
        said = spelling.decode(own)
        # A token may take in a character of the template beside the content.
        bare, own_text = "".join(text.split()), "".join(said.split())
        assert bare in own_text and len(own_text) <= len(bare) + (2 if bare else 0)
    control = {spelling.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>")}
    written = template.replace("'assistant'", "").count("<|im_end|>") * len(texts)
    opened = (len(texts) + 1) if "<|im_start|>" in template else 0
    assert sum(token in control for token in rendered.ids) == written + opened
    assert rendered.left_out == ()
