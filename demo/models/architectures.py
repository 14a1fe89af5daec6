"""Facts about a model's architecture: its decoder layers, context window and cache size."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, cast

from demo.utils.errors import UserError

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported where they are used
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_LAYER_PATHS = (
    "model.layers",  # Llama, Qwen 2 and 3, Gemma 2 and 3, Mistral, Phi-3, OLMo 2
    "model.language_model.layers",  # Gemma 3 and others with a vision part
    "language_model.model.layers",  # the same in older releases
    "gpt_neox.layers",
    "transformer.h",  # GPT-2 and similar models
)

_UNLIMITED = 10_000_000  # tokens; a larger context window in a configuration means "not stated"

_DEFAULT_CONTEXT = 2048


def find_decoder_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """The decoder layers of a causal language model, first to last.

    Raises:
        UserError: None of the known places holds as many layers as the configuration states.
    """
    from torch import nn

    config = cast("PretrainedConfig | None", getattr(model, "config", None))
    stated = getattr(config.get_text_config(), "num_hidden_layers", None) if config is not None else None
    for path in _LAYER_PATHS:
        try:
            found = attrgetter(path)(model)
        except AttributeError:
            continue
        if isinstance(found, nn.ModuleList) and len(found) == stated:
            return tuple(found)
    raise UserError(
        f"The decoder layers of {type(model).__name__} were not found: looked for "
        f"{stated or 'a stated number of'} layers at {', '.join(_LAYER_PATHS)}, "
        "so choose a model of another architecture."
    )


def context_window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The context window in tokens, as the configuration or else the tokenizer states it, or 2,048."""
    for stated in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length):
        if isinstance(stated, int) and 0 < stated < _UNLIMITED:
            return stated
    return _DEFAULT_CONTEXT


def token_bytes(config: PretrainedConfig, itemsize: int) -> int:
    """Bytes of one token's keys and values at all decoder layers.

    Args:
        config: Configuration of the text model.
        itemsize: Bytes per number.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * itemsize
