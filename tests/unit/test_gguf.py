"""Models in GGUF files: tiny ones equal the model they were written from, and unusable files are refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGUFWriter
from tokenizers.pre_tokenizers import ByteLevel

from demo.models import gguf_file
from demo.models.gguf_import import read_tokenizer
from demo.models.loading import load_model, read_facts
from demo.models.pre_tokenizers import PRE_TOKENIZERS, correct_tokenizer
from demo.utils.errors import UserError
from tests.helpers.tiny_models import SMALL, assert_one_sentence, write_model

CONTROL, NORMAL = 3, 1
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("i n", "Ġ t", "Ġt h", "Ġth e", "1 2", "12 3", "e r")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
BYTES = sorted(ByteLevel.alphabet())
TOKENS = [*BYTES, *(merge.replace(" ", "") for merge in MERGES), *SPECIAL]
SIZES: dict[str, Any] = {**SMALL, "vocab_size": len(TOKENS), "tie_word_embeddings": False}


CONFIGS: dict[str, type[Any]] = {
    "llama": transformers.LlamaConfig,
    "qwen2": transformers.Qwen2Config,
    "qwen3": transformers.Qwen3Config,
    "gemma2": transformers.Gemma2Config,
    "gemma3": transformers.Gemma3TextConfig,
    "phi3": transformers.Phi3Config,
}


def made(architecture: str) -> Any:
    """A random model of a GGUF architecture. All of its weights are random, so that none can be confused."""
    torch.manual_seed(3)
    tied = architecture.startswith("gemma")  # as the published ones are
    model = transformers.AutoModelForCausalLM.from_config(
        CONFIGS[architecture](**{**SIZES, "tie_word_embeddings": tied})
    )
    for weight in model.parameters():
        torch.nn.init.normal_(weight.data, std=0.2)
    return model


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix in the order of GGUF's llama, which pairs neighbouring dimensions."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path,
    model: Any,
    *,
    pre: str = "qwen2",
    template: str | None = TEMPLATE,
    extra: Callable[[GGUFWriter], object] = lambda writer: None,
) -> Path:
    """Write a model made in memory, with a byte-level tokenizer, as llama.cpp's converter does."""
    name, config = model.config.model_type.removesuffix("_text"), model.config
    writer = GGUFWriter(path, name)
    writer.add_context_length(96)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if name != "phi3":
        writer.add_key_length(config.head_dim if name != "qwen2" else 8)
    writer.add_rope_freq_base(1e6 if name == "gemma3" else 10000.0)
    if name.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([NORMAL] * (len(TOKENS) - 3) + [CONTROL] * 3)
    writer.add_token_merges(list(MERGES))
    writer.add_token_scores(
        [0.0] * len(TOKENS)
    )  # older releases of transformers want these and a first token
    writer.add_bos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_eos_token_id(TOKENS.index("<|endoftext|>"))
    writer.add_pad_token_id(TOKENS.index("<|endoftext|>"))
    if template is not None:
        writer.add_chat_template(template)
    extra(writer)
    architecture = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == name)
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = tensor.numpy()
        if name.startswith("gemma") and key.endswith("norm.weight"):
            values = values + 1  # GGUF stores the factor, transformers its difference from 1
        if name == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
            values = interleaved(values, heads)
        writer.add_tensor(str(names.get_name(key, try_suffixes=(".weight", ".bias"))), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(40)[None]).logits


@pytest.mark.parametrize("architecture", gguf_file.ARCHITECTURES)
def test_a_gguf_file_gives_the_model_it_was_written_from(architecture: str, tmp_path: Path) -> None:
    model = made(architecture)
    path = write_gguf(tmp_path / "Tiny_Chat-Q8.gguf", model)
    lines: list[str] = []
    loaded = load_model(
        str(path), device="cpu", dtype="float32", progress=lambda line, fraction: lines.append(line)
    )
    torch.testing.assert_close(logits(loaded.model), logits(model.eval()))
    assert loaded.revision == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.slug, loaded.context, len(loaded.layers)) == ("tiny-chat-q8", 96, 3)
    chat: Any = loaded.tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert chat == "<|im_start|>a<|im_end|>"
    assert any("of memory" in line and "are free" in line for line in lines)
    assert list(tmp_path.iterdir()) == [path], "no copy is left on the disk"


def test_the_stated_end_token_and_known_control_tokens_end_a_reply(tmp_path: Path) -> None:
    loaded = load_model(str(write_gguf(tmp_path / "tiny.gguf", made("qwen2"))), device="cpu", dtype="float32")
    ends = {TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")}
    assert set(loaded.model.generation_config.eos_token_id) == ends and ends <= loaded.stops


def test_the_stated_pre_tokenizer_decides_how_text_is_split(tmp_path: Path) -> None:
    def pieces(pre: str, text: str) -> list[str]:
        path = write_gguf(tmp_path / "tiny.gguf", made("qwen2"), pre=pre)
        tokenizer: Any = load_model(str(path), device="cpu", dtype="float32").tokenizer
        return list(tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"]))

    assert pieces("llama-bpe", "123 the") == ["123", "Ġthe"]
    assert pieces("qwen2", "123 the") == ["1", "2", "3", "Ġthe"]
    assert pieces("qwen2", "e\u0301") == pieces("qwen2", "\u00e9")
    assert pieces("smollm", " 12") == ["Ġ", "1", "2"]
    assert pieces("gpt-2", " 12") == ["Ġ", "12"]


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        ("llama-bpe", "I'LL pay 12345!\n\nOk", ["I", "'LL", "Ġpay", "Ġ", "123", "45", "!ĊĊ", "Ok"]),
        ("qwen2", "I'LL pay 12!\n\nOk", ["I", "'LL", "Ġpay", "Ġ", "1", "2", "!ĊĊ", "Ok"]),
        ("gpt-2", "I'll pay 12345!", ["I", "'ll", "Ġpay", "Ġ12345", "!"]),
        ("smollm", "I'll pay 12!", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "!"]),
        ("tekken", "camelCase 12/\n", ["camel", "Case", "Ġ", "1", "2", "/Ċ"]),
        ("gpt-4o", "camelCase's 1234", ["camel", "Case's", "Ġ", "123", "4"]),
        ("deepseek-coder", "if x1:\n", ["if", "Ġx", "1", ":", "Ċ"]),
        ("deepseek-v3", "(abc 1234", ["(abc", "Ġ", "123", "4"]),
    ],
)
def test_each_pre_tokenizer_splits_as_published(pre: str, text: str, pieces: list[str]) -> None:
    tokenizer = transformers.GPT2Tokenizer(vocab={"a": 0}, merges=[])
    correct_tokenizer(tokenizer, PRE_TOKENIZERS[pre])
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)
    assert [piece for piece, _ in split] == pieces


def test_files_of_another_model_beside_it_are_not_read(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", made("qwen2"))
    write_model(tmp_path, "gpt2")
    odd = {"tokenizer_class": "Odd", "chat_template": "odd", "auto_map": {"AutoTokenizer": ["odd.Odd", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(odd), encoding="utf-8")
    loaded = load_model(str(path), device="cpu", dtype="float32")
    assert loaded.architecture == "Qwen2ForCausalLM"
    assert (len(loaded.tokenizer), loaded.tokenizer.chat_template) == (len(TOKENS), TEMPLATE)


def test_an_unknown_pre_tokenizer_is_said(tmp_path: Path) -> None:
    lines: list[str] = []
    path = write_gguf(tmp_path / "tiny.gguf", made("qwen2"), pre="viking")
    load_model(str(path), device="cpu", dtype="float32", progress=lambda line, _: lines.append(line))
    assert any("'viking'" in line and "other tokens" in line for line in lines)


def test_words_of_the_vocabulary_stay_whole_where_the_merges_do_not_lead_to_them(tmp_path: Path) -> None:
    tokenizer = transformers.GPT2Tokenizer(vocab={"a": 0, "b": 1, "ab": 2}, merges=[])
    assert tokenizer("ab")["input_ids"] == [0, 1]
    correct_tokenizer(tokenizer, PRE_TOKENIZERS["llama-bpe"])
    assert tokenizer("ab")["input_ids"] == [2]


def test_a_sentencepiece_tokenizer_adds_a_space_only_where_the_file_says_so(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "▁a"]

    def pieces(space_prefix: bool) -> list[str]:
        writer = GGUFWriter(tmp_path / "tiny.gguf", "llama")
        for key in ("context_length", "embedding_length", "block_count", "feed_forward_length", "head_count"):
            writer.add_uint32(f"llama.{key}", 32)
        writer.add_tokenizer_model("llama")
        writer.add_token_list(tokens)
        writer.add_token_scores([0.0] * 259 + [-1.0, -2.0, -3.0])
        writer.add_token_types([2, CONTROL, CONTROL, *[6] * 256, *[NORMAL] * 3])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_space_prefix(space_prefix)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        header = gguf_file.read_header(tmp_path / "tiny.gguf", "tiny")
        tokenizer = read_tokenizer(header, "tiny", lambda *_: None)
        ids: Any = tokenizer(" a", add_special_tokens=False)["input_ids"]
        assert space_prefix or tokenizer.decode(ids) == " a"
        return list(tokenizer.tokenize("a"))

    assert pieces(space_prefix=True) == ["▁a"]
    assert pieces(space_prefix=False) == ["a"]


def test_the_frequency_factors_of_llama_3_are_restored(tmp_path: Path) -> None:
    factors = np.array([1.0, 1.0, 4.0, 8.0], dtype=np.float32)
    path = write_gguf(
        tmp_path / "tiny.gguf",
        made("llama"),
        pre="llama-bpe",
        extra=lambda writer: writer.add_tensor("rope_freqs.weight", factors),
    )
    plain = 10000.0 ** (-torch.arange(4) / 4)
    loaded: Any = load_model(str(path), device="cpu", dtype="float32").model
    torch.testing.assert_close(loaded.model.rotary_emb.inv_freq, plain / torch.tensor(factors))


def test_a_stated_linear_scaling_is_restored_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    def scaled(kind: gguf.RopeScalingType) -> Path:
        def state(writer: GGUFWriter) -> None:
            writer.add_rope_scaling_type(kind)
            writer.add_rope_scaling_factor(4.0)

        return write_gguf(tmp_path / "tiny.gguf", made("qwen2"), extra=state)

    loaded: Any = load_model(str(scaled(gguf.RopeScalingType.LINEAR)), device="cpu", dtype="float32").model
    torch.testing.assert_close(loaded.model.rotary_emb.inv_freq[0], torch.tensor(0.25))
    with pytest.raises(UserError) as error:
        load_model(str(scaled(gguf.RopeScalingType.LONGROPE)), device="cpu")
    assert_one_sentence(error, "longrope", "safetensors")


def test_vllm_is_not_given_a_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_facts(str(write_gguf(tmp_path / "tiny.gguf", made("qwen2"))))
    assert_one_sentence(error, "vLLM", "tiny.gguf")


# ---- files that are refused


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def cut_header(path: Path) -> None:
    os.truncate(path, 300)


def other_content(path: Path) -> None:
    path.write_bytes(b"<!doctype html>")


def old_version(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4] = 1
    path.write_bytes(content)


def claim_endless_string(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[24:32] = (1 << 62).to_bytes(8, "little")  # the length of the first key
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (truncate, "is incomplete"),
        (cut_header, "download it again"),
        (claim_endless_string, "download it again"),
        (other_content, "is not a GGUF file"),
        (lambda path: path.write_bytes(b""), "is not a GGUF file"),
        (old_version, "version 1"),
    ],
)
def test_a_damaged_gguf_file_is_refused(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", made("qwen2"))
    damage(path)
    with pytest.raises(UserError) as error:
        load_model(str(path), device="cpu")
    assert_one_sentence(error, "tiny.gguf", words)


def test_gguf_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    model = made("qwen2")
    part = write_gguf(tmp_path / "tiny-00001-of-00003.gguf", model)
    untemplated = write_gguf(tmp_path / "base.gguf", model, template=None)
    adapter = write_gguf(tmp_path / "lora.gguf", model, extra=lambda writer: writer.add_type("adapter"))
    other = tmp_path / "mamba.gguf"
    other.write_bytes(part.read_bytes().replace(b"qwen2", b"mamba"))
    cases = {
        part: "one part",
        untemplated: "no chat template",
        adapter: "'adapter'",
        other: "'mamba'",
        tmp_path: "pass the file itself",
        tmp_path / "missing.gguf": "no folder or file",
    }
    for path, words in cases.items():
        with pytest.raises(UserError) as error:
            load_model(str(path), device="cpu")
        assert_one_sentence(error, words)
    assert load_model(str(untemplated), device="cpu", dtype="float32", base=True).base


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "tiny.gguf", made("qwen2"))
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(UserError) as error:
        load_model(str(path), device="cpu")
    assert_one_sentence(error, "pip install gguf")
