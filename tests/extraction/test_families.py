"""Every model family end to end, from a folder in hub layout.

The tests extract an axis, import a published one, and run two turns with the cap, each family with
its own kind of chat template. The weights are random, so only the mechanics are tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

import app
from demo.axis.__main__ import main as import_axis
from demo.axis.files import load_axis
from demo.axis.store import AXES_VARIABLE, find_home, new_home
from demo.conversation.conversation import Conversation
from demo.conversation.settings import BRANCHES, CAPPED, TurnSettings, make_cap
from demo.engine.options import load_engine
from demo.engine.protocol import Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.extraction.__main__ import main as extract
from demo.extraction.archetypes import ARCHETYPES
from demo.extraction.texts import read_records
from demo.models.chat_template import render_chat
from demo.models.loading import load_model
from demo.models.transcript import ASSISTANT, HEADING
from demo.utils.errors import UserError
from tests.helpers.tiny_models import BUILD, GPT2, SMALL

SPECIAL = ["<pad>", "<bos>", "<end>", "<start>", "<head>"]
GENERATION = "{% if add_generation_prompt %}<start>assistant<head>{% endif %}"
TURNS = (
    "{% for m in messages %}<start>{{ m['role'] }}<head>{{ m['content'] | trim }}<end>{% endfor %}"
    + GENERATION
)
# The relevant properties of each family's template, in our own words.
TEMPLATES = {
    # The template writes a preamble with dates into every system turn, and the beginning-of-text
    # token.
    "llama3": "{{ '<bos>' }}{% if messages[0]['role'] == 'system' %}{% set said = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set said = '' %}{% endif %}"
    "<start>system<head>Knowledge until: May 2024\nToday: 1 June 2024\n\n{{ said }}<end>" + TURNS,
    # There is no system role, and the model's turns have another name.
    "gemma": "{{ '<bos>' }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}<start>"
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }}<head>{{ m['content'] | trim }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<start>model<head>{% endif %}",
    # Thinking can be switched off, which writes an empty block. Thoughts of earlier turns are
    # removed.
    "qwen3": "{% for m in messages %}<start>{{ m['role'] }}<head>"
    "{{ m['content'].split('</think>')[-1].lstrip('\n') if m['role'] == 'assistant' else m['content'] }}<end>"
    "{% endfor %}{% if add_generation_prompt %}<start>assistant<head>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    "{% endif %}",
    "plain": TURNS,
}
FAMILIES = {
    "llama": "llama3",
    "qwen2": "plain",
    "qwen3": "qwen3",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "gemma3-vision": "gemma",
    "mistral": "plain",
    "phi3": "plain",
    "olmo2": "plain",
    "gpt-neox": "plain",
    "gpt2": "plain",
}


def byte_tokenizer(template: str | None, padding: str) -> transformers.PreTrainedTokenizerFast:
    """A tokenizer with one token per byte and a beginning-of-text token before every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    backend = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<end>",
        pad_token="<pad>",
        additional_special_tokens=["<start>", "<head>"],
        padding_side=padding,
    )
    tokenizer.chat_template = template
    return tokenizer


def hub_folder(folder: Path, family: str, monkeypatch: pytest.MonkeyPatch, **tokenizer: Any) -> Path:
    settings = {"padding": "right"} | tokenizer
    made = byte_tokenizer(settings.get("template", TEMPLATES[FAMILIES[family]]), settings["padding"])
    for sizes, length in ((SMALL, "max_position_embeddings"), (GPT2, "n_positions")):
        monkeypatch.setitem(sizes, "vocab_size", len(made))
        monkeypatch.setitem(sizes, length, 1024)
    torch.manual_seed(7)
    model = BUILD[family]()
    model.generation_config.eos_token_id = made.eos_token_id
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_extraction_import_capping_and_chat(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = hub_folder(tmp_path / "model", family, monkeypatch)
    flags = (
        "--preset quick --roles 3 --questions 2 --rollouts 2 --max-new-tokens 3 --role-adherence none "
        "--cap-layers 1-2"
    )
    device = ["--device", "cpu", "--dtype", "float32"]
    assert extract(["--model", str(folder), "--out", str(tmp_path / "axis"), *flags.split(), *device]) == 0
    model = load_model(str(folder), device="cpu", dtype="float32")
    axis = load_axis(tmp_path / "axis")
    assert axis.check_model(model) == [] and axis.layers == len(model.layers)
    talk(model, axis)

    torch.save(axis.direction.bfloat16(), tmp_path / "assistant_axis.pt")
    (tmp_path / "caps.json").write_text('{"1": -0.5, "2": -0.5}')
    arguments = [
        "import",
        str(tmp_path / "assistant_axis.pt"),
        "--sign",
        "assistant",
        "--out",
        str(tmp_path / "in"),
    ]
    assert import_axis([*arguments, "--caps", str(tmp_path / "caps.json"), "--probe-layer", "1"]) == 0
    imported = load_axis(tmp_path / "in")
    assert any("anchors" in note for note in imported.check_model(model))
    talk(model, imported)


def talk(model: Any, axis: Any) -> None:
    """Run two turns. Projections are finite and the capped branch keeps to its floor."""
    engine, conversation = TransformersEngine(model, axis), Conversation()
    first, last = axis.cap_band
    sampling = Sampling(temperature=1.0, max_new_tokens=5)
    settings = TurnSettings(sampling, make_cap(axis, first, last, axis.cap_floor), "You are a bard.")
    for text in ("Hello there.", "And then?"):
        for _ in conversation.send(engine, text, settings):
            pass
    for turn in conversation.turns:
        for branch in BRANCHES:
            read = turn.replies[branch].read
            assert all(token.before is not None and abs(token.before) < 1e6 for token in read)
            if first <= axis.probe_layer <= last and branch == CAPPED:
                floor = axis.floor_units(axis.cap_floor, axis.probe_layer)
                assert all(token.after >= floor - 1e-3 for token in read if token.after is not None)
    for branch in BRANCHES:
        ids = render_chat(model.tokenizer, conversation.messages(branch, "You are a bard.")).ids
        assert ids.count(model.tokenizer.bos_token_id) <= 1


def rendered(tokenizer: Any, messages: list[Any]) -> str:
    return str(tokenizer.decode(render_chat(tokenizer, messages).ids))


def test_system_prompt_moves_into_the_user_turn_without_a_system_role():
    tokenizer = byte_tokenizer(TEMPLATES["gemma"], "right")
    asked = [{"role": "system", "content": "You are a bard."}, {"role": "user", "content": "Hello."}]
    text = rendered(tokenizer, asked)
    assert text.index("user<head>You are a bard.") < text.index("Hello.") and "system" not in text


def test_thinking_is_off_and_earlier_thoughts_are_removed():
    tokenizer = byte_tokenizer(TEMPLATES["qwen3"], "right")
    asked = [
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Good day."},
        {"role": "user", "content": "Again."},
    ]
    text = rendered(tokenizer, asked)
    assert text.endswith("<think>\n\n</think>\n\n") and text.count("<think>") == 1


def test_preamble_of_the_template_belongs_to_no_message():
    tokenizer = byte_tokenizer(TEMPLATES["llama3"], "right")
    chat = render_chat(tokenizer, [{"role": "user", "content": "Hello."}])
    assert chat.ids.count(tokenizer.bos_token_id) == 1
    content = [token for token, owner in zip(chat.ids, chat.owner, strict=True) if owner == 0]
    assert tokenizer.decode(content) == "Hello." and "Knowledge until" in tokenizer.decode(chat.ids)


def test_padding_side_does_not_change_the_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    axes = []
    for padding in ("left", "right"):
        folder = hub_folder(tmp_path / padding / "model", "llama", monkeypatch, padding=padding)
        flags = "--preset quick --roles 2 --questions 1 --rollouts 1 --max-new-tokens 2 --role-adherence none"
        command = ["--model", str(folder), "--out", str(tmp_path / padding / "axis"), "--dtype", "float32"]
        assert extract([*command, *flags.split(), "--device", "cpu", "--cap-layers", "1-2"]) == 0
        axes.append(load_axis(tmp_path / padding / "axis").direction)
    assert torch.equal(*axes)


def test_model_without_a_chat_template_is_refused(tmp_path, monkeypatch, capsys):
    folder = hub_folder(tmp_path / "model", "llama", monkeypatch, template=None)
    assert extract(["--model", str(folder), "--out", str(tmp_path / "axis")]) == 2
    said = capsys.readouterr().err
    assert "has no chat template" in said and "--base" in said


@pytest.mark.slow
def test_a_pretrained_model_is_interviewed_in_plain_transcripts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(AXES_VARIABLE, str(tmp_path / "axes"))
    folder = hub_folder(tmp_path / "model", "llama", monkeypatch, template=None)
    plain = load_model(str(folder), device="cpu", dtype="float32", base=True)
    out = new_home(plain)
    flags = (
        "--base --preset quick --roles 3 --questions 2 --rollouts 1 --max-new-tokens 6 "
        "--role-adherence none --cap-layers 1-2 --device cpu --dtype float32"
    )
    assert extract(["--model", str(folder), "--out", str(out), *flags.split()]) == 0

    axis, records = load_axis(out), read_records(out, split=None)
    manifest = axis.manifest
    assert manifest["model"]["base"] is True and manifest["role_prompts"] == "example"
    assert manifest["template_system_prompt"] == HEADING.format(who=ASSISTANT)
    assert set(ARCHETYPES) <= {role["name"] for role in manifest["roles"]}
    assert "interviews (--base)" in (out / "report.md").read_text()
    assert all("\n" not in record["reply"] for record in records)
    assert any(0 < record["tokens"] < 6 for record in records), "no reply of these ended with its line"

    # The same files find their axis only with --base, and the page then says what it is.
    assert find_home(load_model(str(folder), device="cpu", dtype="float32", base=True)) is not None
    command = ["--model", str(folder), "--base", "--device", "cpu", "--dtype", "float32"]
    engine, notes = load_engine(app.parser().parse_args(command), lambda *said: None)
    assert any("plain transcripts (--base)" in note for note in notes)
    talk(engine.model, axis)
    with pytest.raises(UserError, match="--base"):
        load_engine(app.parser().parse_args(["--model", str(folder)]), lambda *said: None)
