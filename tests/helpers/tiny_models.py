"""Tiny random models of each architecture, in memory or on disk, and a check of error messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from demo.models.architectures import find_decoder_layers
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 5,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def assert_one_sentence(error: pytest.ExceptionInfo[UserError], *words: str) -> None:
    """Check that the error's message is one sentence that contains `words`."""
    message = str(error.value)
    assert "\n" not in message and message.endswith(".") and ". " not in message, message
    for word in words:
        assert word in message, message


def gemma3_with_vision() -> transformers.PreTrainedModel:
    config = transformers.Gemma3Config(
        text_config=SMALL, vision_config=VISION, mm_tokens_per_image=4, image_token_index=9
    )
    return transformers.Gemma3ForConditionalGeneration(config)


GPT2: dict[str, Any] = {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}
BUILD: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)),
    "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SMALL)),
    "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**SMALL)),
    "gemma2": lambda: transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SMALL)),
    "gemma3": lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SMALL)),
    "gemma3-vision": gemma3_with_vision,
    "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**SMALL)),
    "phi3": lambda: transformers.Phi3ForCausalLM(transformers.Phi3Config(**SMALL)),
    "olmo2": lambda: transformers.Olmo2ForCausalLM(transformers.Olmo2Config(**SMALL)),
    "gpt-neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SMALL)),
    "gpt2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2)),
}


def write_tokenizer(folder: Path, *, chat: bool = True) -> None:
    """Write a tokenizer of 64 words, with a chat template if `chat`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    backend = Tokenizer(WordLevel({f"w{i}": i for i in range(64)}, unk_token="w3"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="w1", eos_token="w2", pad_token="w0", unk_token="w3"
    )
    if chat:
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)


def write_model(folder: Path, name: str = "llama", *, chat: bool = True, **options: Any) -> Path:
    """Write a model of architecture `name` and a tokenizer to `folder`, and return it."""
    BUILD[name]().save_pretrained(folder, **options)
    write_tokenizer(folder, chat=chat)
    return folder


def as_loaded(made: Any, tokenizer: Any, context: int) -> LoadedModel:
    """Wrap a model made in memory, as `load_model` does."""
    made.eval().requires_grad_(False)
    layers = find_decoder_layers(made)
    name, cpu, width = type(made).__name__, torch.device("cpu"), made.config.get_text_config().hidden_size
    return LoadedModel(
        made, tokenizer, "tiny", "tiny", layers, width, context, name, None, cpu, torch.float32, "float32"
    )


def tiny_llama(real: LoadedModel, context: int = 256, seed: int = 7) -> LoadedModel:
    """A random Llama with the tokenizer and the stop token of `real`."""
    torch.manual_seed(seed)
    sizes = {**SMALL, "vocab_size": len(real.tokenizer), "max_position_embeddings": context}
    made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    made.generation_config.eos_token_id = real.tokenizer.eos_token_id
    return as_loaded(made, real.tokenizer, context)
