"""Small random models of every causal architecture that transformers has, for trying the engine on.

Each keeps its own configuration class and its published pattern of layers, caches and windows; only the sizes
are small. Such models say nothing about personas.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

WINDOW = 16  # tokens of sliding windows and attention chunks: short, so that conversations exceed it
CONTEXT = 512
VOCABULARY = 320

_MOST_PARAMETERS = 100_000_000

# A value for each name that configurations use for a size. A configuration gets those that it has.
_SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embed_dim", "word_embed_proj_dim", "dim", "lru_width"), 64
    ),
    **dict.fromkeys(("conv_dim", "block_dim", "conv_dim_out", "attention_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "decoder_ffn_dim", "encoder_ffn_dim", "n_inner"), 96),
    **dict.fromkeys(("ffn_hidden_size", "d_ff", "dim_ff", "block_ff_dim", "ffn_intermediate_size"), 96),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads", "num_global_key_value_heads"), 2),
    **dict.fromkeys(("head_dim", "v_head_dim", "index_head_dim", "dim_head"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(
        ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts"), 2
    ),
    **dict.fromkeys(("n_group", "topk_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("moe_num_shared_experts", "n_shared_experts", "num_shared_experts"), 1),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32
    ),
    "global_head_dim": 32,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    **dict.fromkeys(("sliding_window", "attention_window_size", "attention_chunk_size"), WINDOW),
    **dict.fromkeys(("linear_num_key_heads", "index_n_heads", "n_mamba_heads", "num_linear_heads"), 2),
    "linear_num_value_heads": 4,
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 16),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads"), 8),
    **dict.fromkeys(
        ("mamba_d_head", "mamba_head_dim", "mamba_headdim", "mamba_d_state", "ssm_state_size"), 16
    ),
    **dict.fromkeys(("state_size", "chunk_size", "mamba_chunk_size", "hidden_size_per_layer_input"), 16),
    **dict.fromkeys(("mamba_n_groups", "n_groups", "mamba_ngroups"), 1),
    "mamba_d_ssm": 128,
    **dict.fromkeys(("mamba_dt_rank", "time_step_rank"), 4),
    **dict.fromkeys(("laurel_rank",), 8),
    "index_topk": 64,
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), VOCABULARY),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), CONTEXT),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "num_blocks")

# What the default configuration of a class leaves out of the pattern that the published models have, and
# sizes that only one architecture has.
_PUBLISHED: dict[str, dict[str, Any]] = {
    "lfm2": {"num_hidden_layers": 4, "layer_types": ["conv", "conv", "full_attention", "conv"]},
    "lfm2_moe": {
        "num_hidden_layers": 4,
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "num_dense_layers": 1,
    },
    "granitemoehybrid": {
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "mamba", "attention", "mamba"],
        "mamba_expand": 2,
        "shared_intermediate_size": 32,
    },
    "bamba": {"num_hidden_layers": 4, "attn_layer_indices": [2], "mamba_expand": 2},
    "gemma3n_text": {"num_hidden_layers": 8, "num_kv_shared_layers": 3, "intermediate_size": [96] * 8},
    "gemma4_text": {"num_hidden_layers": 8, "num_kv_shared_layers": 2},
    "minimax": {
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    },
    "falcon_h1": {"mamba_d_ssm": 128},
    "mamba2": {"num_heads": 8, "head_dim": 16, "expand": 2},
    "zamba2": {"mamba_expand": 2, "n_mamba_heads": 8, "attention_hidden_size": 128, "attention_head_dim": 32},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "ministral": {"head_dim": 16},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 16},
    "dots3_note_text": {"num_key_value_heads": 4},
    "zaya": {"num_experts_per_tok": 1},
    "deepseek_v2": {"num_experts_per_tok": 2, "num_key_value_heads": 4},
    "longcat_flash": {"num_hidden_layers": 6, "num_layers": 3},
    "xlstm": {"embedding_dim": 64, "num_heads": 4},
    "smollm3": {"num_hidden_layers": 5, "no_rope_layers": [1, 1, 1, 0, 1]},
    "falcon": {"num_hidden_layers": 3},
}


def causal_types() -> list[str]:
    """The model types that transformers knows as causal language models."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_config(model_type: str) -> PretrainedConfig:
    """The architecture's configuration with small sizes. Raises whatever its class raises."""
    whole = CONFIG_MAPPING[model_type]()
    text = whole.get_text_config(decoder=True)
    small = _small(text)
    if text is whole:
        return _made(type(whole), small)
    parts = {
        name: _small(getattr(whole, name))
        for name in whole.sub_configs
        if getattr(whole, name, None) is not None
    }
    named = next((name for name in whole.sub_configs if getattr(whole, name, None) is text), None)
    if named is None:  # the decoder's view of a configuration with an encoder
        return _made(type(whole), small)
    parts[named] = small
    return _made(type(whole), {**parts, "pad_token_id": 0})


def tiny_model(model_type: str, seed: int = 0) -> PreTrainedModel:
    """A random float32 model of the architecture.

    Raises:
        ValueError: Its configuration has sizes that `_SIZES` does not know, so it would be large.
        Exception: Whatever its classes raise.
    """
    config = tiny_config(model_type)
    with torch.device("meta"):
        count = sum(one.numel() for one in AutoModelForCausalLM.from_config(config).parameters())
    if count > _MOST_PARAMETERS:
        raise ValueError(f"it still has {count / 1e6:.0f} million parameters")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval().requires_grad_(False)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with a ChatML template, for models of `VOCABULARY` tokens."""
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import ByteLevel as ByteDecoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import ByteLevel

    marks = ["<pad>", "<s>", "<|im_end|>", "<|im_start|>"]
    letters = sorted(ByteLevel.alphabet())
    backend = Tokenizer(BPE({token: number for number, token in enumerate([*marks, *letters])}, []))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), ByteDecoder()
    backend.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="<|im_end|>", pad_token="<pad>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


def _made(kind: type[PretrainedConfig], values: dict[str, Any]) -> PretrainedConfig:
    return kind(**values)


def _small(config: PretrainedConfig) -> dict[str, Any]:
    """The arguments that make a small configuration of the same class and pattern."""
    found = {name: value for name, value in _SIZES.items() if _has(config, name)}
    if _has(config, "qk_rope_head_dim") and "head_dim" in found:  # latent attention: only the rotated part
        found["head_dim"] = found["qk_rope_head_dim"]
        found["num_key_value_heads"] = found["num_attention_heads"]
    counts = [name for name in _COUNTS if _has(config, name)]
    published = _PUBLISHED.get(config.model_type, {})
    if counts:
        layers = published.get("num_hidden_layers") or _shortest_pattern(config)
        stated = getattr(config, counts[0])
        found.update(dict.fromkeys(counts, layers))
        for name, value in config.to_dict().items():
            if isinstance(value, list) and len(value) == stated:
                found[name] = value[:layers]
    return {**found, **published}


def _shortest_pattern(config: PretrainedConfig) -> int:
    """How many layers hold one of each kind, and one more."""
    types = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    if not types:
        return 3
    return max(3, 2 + max(list(types).index(kind) for kind in set(types)))


def _has(config: PretrainedConfig, name: str) -> bool:
    """Whether a configuration states a value of this name that can be changed."""
    with contextlib.suppress(Exception):  # some names raise where they differ from layer to layer
        value = getattr(config, name, None)
        writable = getattr(getattr(type(config), name, None), "fset", True) is not None
        return value is not None and writable
    return True
