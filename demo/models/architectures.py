"""Facts about a model's architecture: its decoder layers, context window and cache size."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from demo.space import on_zerogpu
from demo.utils.errors import UserError, first_sentence

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported where they are used
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_UNLIMITED = 10_000_000  # tokens; a larger context window in a configuration means "not stated"

_DEFAULT_CONTEXT = 2048


def find_decoder_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """The decoder layers of a causal language model, first to last.

    They are the longest list of modules that a short text passes through one after the other and whose
    outputs are residual streams.

    Raises:
        UserError: There is no such list, or the model cannot read plain text.
    """
    name = type(model).__name__
    config = cast("PretrainedConfig | None", getattr(model, "config", None))
    if config is None:
        raise UserError(f"{name} is not a language model of transformers: choose another model.")
    text = config.get_text_config()
    stated = getattr(text, "num_hidden_layers", None)
    lists = _module_lists(model)
    sized = [layers for layers in lists if len(layers) == stated]
    if on_zerogpu() and len(sized) == 1:  # nothing can be run before a visitor's first message
        return tuple(sized[0])
    found = max(_that_carry_the_residual_stream(model, text.hidden_size, lists), key=len, default=[])
    if not found:
        raise UserError(
            f"{name} has no decoder layers that pass on a single residual stream (looked through "
            f"{len(lists)} lists of modules): choose a model of another architecture."
        )
    return tuple(found)


def _module_lists(model: nn.Module) -> list[list[nn.Module]]:
    """All lists of modules in the model, the lists inside their elements left out."""
    from torch import nn

    found: list[list[nn.Module]] = []
    inside: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) and id(module) not in inside:
            found.append(list(module))
            inside.update(id(one) for element in module for one in element.modules())
    return found


def _that_carry_the_residual_stream(
    model: nn.Module, width: int, lists: list[list[nn.Module]]
) -> list[list[nn.Module]]:
    """The lists whose modules all run, in order, on a short text, and output [1, tokens, width]."""
    import torch

    from demo.capping import residual_of

    order: list[int] = []

    def seen(module: nn.Module, args: object, output: object) -> None:
        try:
            carries = residual_of(output).shape == (1, 2, width)
        except TypeError:
            carries = False
        if carries:
            order.append(id(module))

    handles = [layer.register_forward_hook(seen) for layers in lists for layer in layers]
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            model(input_ids=torch.tensor([[1, 2]], device=device))
    except Exception as error:  # models that need more than text can raise errors of any kind
        raise UserError(
            f"{type(model).__name__} cannot read plain text ({first_sentence(error)}): choose another model."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return [
        layers
        for layers in lists
        if [module for module in order if module in {id(layer) for layer in layers}]
        == [id(layer) for layer in layers]
    ]


def context_window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The context window in tokens, as the configuration or else the tokenizer states it, or 2,048."""
    for stated in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length):
        if isinstance(stated, int) and 0 < stated < _UNLIMITED:
            return stated
    return _DEFAULT_CONTEXT


def token_bytes(config: PretrainedConfig, itemsize: int) -> int:
    """Bytes of one token's keys and values at all decoder layers, estimated from the configuration.

    Layers of other kinds, such as recurrent ones, are counted as if they kept keys and values too.

    Args:
        config: Configuration of the text model.
        itemsize: Bytes per number.
    """
    try:
        queries = getattr(config, "num_attention_heads", None)
        if not isinstance(queries, int) or queries < 1:  # a model without attention
            return 0
        heads = getattr(config, "num_key_value_heads", None) or queries
        size = getattr(config, "head_dim", None) or config.hidden_size // queries
    except Exception:  # transformers raises an error of its own where layers differ: assume the most
        return 2 * config.num_hidden_layers * config.hidden_size * itemsize
    return 2 * config.num_hidden_layers * heads * size * itemsize
