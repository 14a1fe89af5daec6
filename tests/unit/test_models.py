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
from safetensors.torch import load_file, save_file

from demo.models import default as default_model
from demo.models import default_download, memory
from demo.models.architectures import context_window, find_decoder_layers
from demo.models.default import DEFAULT_MODEL, model_cache_dir
from demo.models.loading import LoadedModel, load_model
from demo.models.memory import Memory, MemoryNeed, folder_need
from demo.utils.errors import UserError
from demo.utils.files import file_sha256
from demo.utils.paths import ROOT
from tests.helpers.tiny_models import BUILD, SMALL, VISION, assert_one_sentence, write_model, write_tokenizer


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
    assert default.dtype_reason.startswith(default.dtype_name)


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


def qwen_vl() -> transformers.PreTrainedModel:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    vision = {"depth": 1, "embed_dim": 16, "hidden_size": 32, "num_heads": 2}
    places = {
        "image_token_id": 60,
        "video_token_id": 61,
        "vision_start_token_id": 62,
        "vision_end_token_id": 63,
    }
    return transformers.Qwen2VLForConditionalGeneration(
        transformers.Qwen2VLConfig(
            text_config={**SMALL, "rope_parameters": rope}, vision_config=vision, **places
        )
    )


def llava() -> transformers.PreTrainedModel:
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**SMALL),
            vision_config=transformers.CLIPVisionConfig(**{**VISION, "num_hidden_layers": 2}),
            image_token_index=9,
        )
    )


@pytest.mark.parametrize("build", [qwen_vl, llava])
def test_models_that_also_read_images_load_for_text(build: Any, tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    loaded = load_model(str(tmp_path), device="cpu", dtype="float32")
    assert (len(loaded.layers), loaded.hidden_size, loaded.context) == (3, 32, 96)
    model: Any = loaded.model
    ids = torch.tensor([[0, 0, 4, 5, 6]])
    mask, places = torch.tensor([[0, 0, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1, 2]])
    with torch.no_grad():
        padded = model(ids, attention_mask=mask, position_ids=places).logits[:, 2:]
        torch.testing.assert_close(padded, model(ids[:, 2:]).logits)


def test_a_model_that_does_not_write_text_token_by_token_is_refused(tmp_path: Path) -> None:
    config = transformers.T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(UserError) as error:
        load_model(str(tmp_path), device="cpu")
    assert_one_sentence(error, "causal language model")


def test_something_else_than_a_language_model_is_refused() -> None:
    with pytest.raises(UserError) as error:
        find_decoder_layers(torch.nn.Linear(2, 2))
    assert_one_sentence(error, "Linear", "choose another model")


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
    assert len(messages) == 1 and messages[0].startswith(
        f"loading {folder}, which takes about 0.5 GB of memory; "
    )
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# ---- memory


@pytest.mark.parametrize(("dtype", "itemsize"), [("float32", 4), ("bfloat16", 2)])
def test_the_need_is_the_weights_and_the_files_they_are_converted_from(
    dtype: str, itemsize: int, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "tiny", max_shard_size="20KB")  # stored as float32
    loaded = load_model(str(folder), device="cpu", dtype=dtype)
    numbers = sum(weight.numel() for weight in loaded.model.parameters())
    assert folder_need(folder, itemsize) == MemoryNeed(
        numbers * itemsize, files=0 if itemsize == 4 else 4 * numbers
    )


def test_quantised_numbers_count_as_they_are_stored(tmp_path: Path) -> None:
    tensors = {"packed": torch.zeros(8, dtype=torch.uint8), "scale": torch.zeros(2, dtype=torch.bfloat16)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert folder_need(tmp_path, 4) == MemoryNeed(8 + 8, files=4)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    assert folder_need(tmp_path, 4) is None


def test_a_model_that_cannot_fit_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = write_model(tmp_path / "tiny")
    lines: list[str] = []
    monkeypatch.setattr(memory, "device_memory", lambda _: Memory(0, 10**10, "this machine"))
    load_model(str(folder), device="cpu", progress=lambda line, _: lines.append(line))
    assert "may not be enough" in lines[0], "what is in use now may be freed, or swapped out"
    monkeypatch.setattr(memory, "device_memory", lambda _: Memory(0, 10**8, "this machine"))
    monkeypatch.setattr("demo.models.loading.read_files", lambda *_: pytest.fail("read the weights"))
    with pytest.raises(UserError) as error:
        load_model(str(folder), device="cpu")
    assert_one_sentence(error, str(folder), "this machine has 0.1 GB", "--dtype bfloat16", "smaller model")


def test_a_container_with_less_memory_than_the_machine_counts(tmp_path: Path) -> None:
    assert memory.host_memory(tmp_path).name == "this machine"
    for name, content in (
        ("memory.max", "max"),
        ("memory.current", "900000"),
        ("memory.stat", "anon 5\ninactive_file 300000\n"),
    ):
        (tmp_path / name).write_text(content, encoding="ascii")
    assert memory.host_memory(tmp_path).name == "this machine"
    (tmp_path / "memory.max").write_text("1000000\n", encoding="ascii")
    assert memory.host_memory(tmp_path) == Memory(400_000, 1_000_000, "this container")
