"""Loading models: the default model end to end, and a tiny random model of each architecture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from demo.models import default as default_model
from demo.models import default_download
from demo.models.architectures import context_window, find_decoder_layers
from demo.models.default import DEFAULT_MODEL, model_cache_dir
from demo.models.loading import LoadedModel, load_model
from demo.utils.errors import UserError
from demo.utils.files import file_sha256
from demo.utils.paths import ROOT
from tests.helpers.tiny_models import BUILD, SMALL, assert_one_sentence, write_model, write_tokenizer


@pytest.fixture(scope="module")
def default() -> Iterator[LoadedModel]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(default_model.CACHE_VARIABLE, raising=False)
        yield load_model(device="cpu")


# ---- the default model


def test_default_model_is_ready_to_run(default: LoadedModel) -> None:
    assert (default.spec, default.slug) == (DEFAULT_MODEL, DEFAULT_MODEL)
    assert (default.architecture, len(default.layers)) == ("LlamaForCausalLM", 30)
    assert (default.hidden_size, default.context) == (576, 8192)
    assert default.revision == default_download.GGUF_SHA256
    assert not default.model.training
    assert not any(weight.requires_grad for weight in default.model.parameters())
    assert {weight.dtype for weight in default.model.parameters()} == {default.dtype}
    assert default.dtype_reason.startswith(str(default.dtype).removeprefix("torch."))


def test_default_model_answers_a_question(default: LoadedModel) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt: Any = default.tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    model: Any = default.model
    reply = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in str(default.tokenizer.decode(reply))
    assert reply[-1] == default.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("\n\n1.", ["ĊĊ", "1", "."]),
        (" 2024", ["Ġ", "2", "0", "2", "4"]),
        ("Hello world", ["Hello", "Ġworld"]),
        ("<|im_start|>user\n", ["<|im_start|>", "user", "Ċ"]),
    ],
)
def test_default_tokenizer_splits_text_as_in_training(
    default: LoadedModel, text: str, pieces: list[str]
) -> None:
    ids = default.tokenizer(text)["input_ids"]
    assert default.tokenizer.convert_ids_to_tokens(ids) == pieces
    assert default.tokenizer.decode(ids) == text


def test_default_tokenizer_settings(default: LoadedModel) -> None:
    tokenizer = default.tokenizer
    assert tokenizer.model_max_length == 8192
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.eos_token == "<|im_end|>"
    two = tokenizer(["a", "a longer text"])["input_ids"]
    assert isinstance(two, list) and len(two[0]) == 1 and len(two[1]) > 1, "no padding by default"
    rendered: Any = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert str(rendered).count("<|im_start|>") == 2, "the template's system turn and the user's"


def test_default_model_is_converted_once(default: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(default_model.CACHE_VARIABLE, raising=False)
    monkeypatch.setattr(default_model, "obtain_gguf", lambda *_: pytest.fail("downloaded again"))
    folder = default_model.ensure_default_model(model_cache_dir(), lambda *_: None)
    record = json.loads((folder / "source.json").read_text(encoding="utf-8"))
    assert record["model_sha256"] == file_sha256(folder / "model.safetensors")
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
    assert not list(folder.parent.glob(f".{DEFAULT_MODEL}.*.{os.getpid()}.*"))


def test_the_environment_variable_sets_the_cache_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(default_model.CACHE_VARIABLE, str(tmp_path))
    assert model_cache_dir() == tmp_path
    monkeypatch.delenv(default_model.CACHE_VARIABLE)
    assert model_cache_dir().name == "persona-drift-microscope"


def test_importing_the_module_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, demo.models.loading; sys.exit(any(n in sys.modules for n in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- tiny models


@pytest.mark.parametrize("name", BUILD)
def test_each_architecture_loads_with_its_layers_in_order(name: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path / f"Tiny_{name}")
    loaded = load_model(str(folder), device="cpu", dtype="float32")
    assert loaded.slug == f"tiny-{name}"
    assert (loaded.hidden_size, loaded.context, loaded.revision) == (32, 96, None)
    assert len(loaded.layers) == 3
    assert find_decoder_layers(loaded.model) == loaded.layers
    outputs: list[torch.Tensor] = []
    for layer in loaded.layers:
        layer.register_forward_hook(
            lambda _, __, out: outputs.append(out[0] if isinstance(out, tuple) else out)
        )
    with torch.no_grad():
        result: Any = loaded.model(torch.tensor([[4, 5, 6]]), output_hidden_states=True)
    # hidden_states[l + 1] is layer l's output, except the last, which has gone through the final norm.
    assert len(outputs) == 3
    for index in (0, 1):
        assert torch.equal(outputs[index], result.hidden_states[index + 1])
    assert outputs[2].shape == (1, 3, 32)


def test_unknown_architecture_and_wrong_layer_count_are_refused() -> None:
    model = BUILD["llama"]()
    model.config.num_hidden_layers = 4
    for unknown in (torch.nn.Linear(2, 2), model):
        with pytest.raises(UserError) as error:
            find_decoder_layers(unknown)
        assert_one_sentence(error, type(unknown).__name__, "model.layers", "transformer.h")


def test_a_context_window_that_is_not_stated_has_fallbacks(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tmp_path)
    config = transformers.LlamaConfig(**SMALL)
    config.max_position_embeddings = int(1e30)
    assert context_window(config, tokenizer) == 2048
    tokenizer.model_max_length = 512
    assert context_window(config, tokenizer) == 512


def test_loading_prints_nothing_and_restores_log_settings(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = (logging.get_verbosity(), logging.is_progress_bar_enabled())
    messages: list[str] = []
    folder = write_model(tmp_path / "tiny")
    capfd.readouterr()
    load_model(str(folder), device="cpu", progress=lambda message, _: messages.append(message))
    assert "".join(capfd.readouterr()) == ""
    assert messages == [f"loading {folder}"]
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
