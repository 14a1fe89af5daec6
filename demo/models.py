"""Load a language model by name, with what capping needs to know about it: its decoder layers and width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from demo.default_download import Progress
from demo.default_model import DEFAULT_MODEL, model_cache_dir
from demo.devices import pick_device, pick_dtype
from demo.errors import UserError
from demo.model_sources import ModelSource, find_source, first_sentence
from demo.quiet import quiet_transformers

if TYPE_CHECKING:  # torch and transformers take seconds to import: only a load pays for them
    import torch
    from torch import nn
    from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "DEFAULT_MODEL",
    "LoadedModel",
    "Progress",
    "context_window",
    "find_decoder_layers",
    "load_model",
    "load_tokenizer",
    "model_cache_dir",
    "pick_device",
    "pick_dtype",
    "stop_tokens",
    "token_bytes",
]

_LAYER_PATHS = (
    "model.layers",  # Llama, Qwen 2 and 3, Gemma 2 and 3, Mistral, Phi-3, OLMo 2
    "model.language_model.layers",  # Gemma 3 and others with a vision part
    "language_model.model.layers",  # the same in older releases
    "gpt_neox.layers",
    "transformer.h",  # GPT-2 and its kin
)
_ENDLESS = 10_000_000  # no window is this long: such numbers stand for "not stated"
_UNSTATED_CONTEXT = 2048


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: eval mode, no gradients, on its device.

    Attributes:
        spec: what the user asked for.
        slug: the last part of ``spec`` in lower case with only a-z, 0-9, dot and hyphen: a safe file name.
        layers: the decoder layers in order; each gives the residual stream [batch, seq, hidden_size].
        context: the context window, in tokens.
        architecture: the model's class name, such as LlamaForCausalLM.
        revision: sha256 of the default model's GGUF file, a hub commit hash, or None for a local folder.
        dtype_reason: one phrase for the start-up line.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    spec: str
    slug: str
    layers: tuple[nn.Module, ...]
    hidden_size: int
    context: int
    architecture: str
    revision: str | None
    device: torch.device
    dtype: torch.dtype
    dtype_reason: str

    @property
    def layer_count(self) -> int:
        return len(self.layers)

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end a reply."""
        return stop_tokens(self.model.generation_config, self.tokenizer)

    @cached_property
    def cache_argument(self) -> str:
        """What `forward` calls the KV cache: transformers renamed it in 5.24 and will drop the old name in 5.40."""
        return "cache" if "cache" in signature(self.model.forward).parameters else "past_key_values"

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values at all decoder layers."""
        return token_bytes(self.model.config.get_text_config(), self.dtype.itemsize)


def load_model(
    spec: str = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Load the default model, a local folder or a hub model, with its tokenizer.

    Args:
        spec: ``smollm2-135m-instruct``, a folder, or ``owner/name``.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16 or float16.
        trust_remote_code: let the model's repository run code of its own.
        cache_dir: where to keep the default model and hub downloads, instead of the user's caches.
        progress: called with a message and a fraction 0..1, or None where it is unknown.

    Raises:
        UserError: one sentence saying what is wrong and what to do.
    """
    report = progress or (lambda message, fraction: None)
    target = pick_device(device)  # a slip here should show before anything is downloaded
    kind, reason = pick_dtype(dtype, target)
    source = find_source(spec, cache_dir=cache_dir, trust_remote_code=trust_remote_code, progress=report)
    report(f"loading {spec}", None)
    tokenizer = load_tokenizer(source, spec, trust_remote_code)
    model = _load_weights(source, spec, target, kind, trust_remote_code)
    config = model.config.get_text_config()
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        spec=spec,
        slug=source.slug,
        layers=find_decoder_layers(model),
        hidden_size=config.hidden_size,
        context=context_window(config, tokenizer),
        architecture=type(model).__name__,
        revision=source.revision,
        device=target,
        dtype=kind,
        dtype_reason=reason,
    )


def find_decoder_layers(model: nn.Module) -> tuple[nn.Module, ...]:
    """The decoder layers of a causal language model, first to last.

    Raises:
        UserError: none of the known places holds as many layers as the configuration states.
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
    """Tokens the model was made for: its own statement, else the tokenizer's, else a modest guess."""
    for stated in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length):
        if isinstance(stated, int) and 0 < stated < _ENDLESS:
            return stated
    return _UNSTATED_CONTEXT


def stop_tokens(settings: GenerationConfig | None, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end a reply: the tokenizer's and whatever the model's generation settings name."""
    named = settings.eos_token_id if settings else None
    listed = named if isinstance(named, list) else [named]
    return frozenset(token for token in (*listed, tokenizer.eos_token_id) if token is not None)


def token_bytes(config: PretrainedConfig, itemsize: int) -> int:
    """Bytes of one token's keys and values at all decoder layers, as a text model's configuration has them."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * size * itemsize


def load_tokenizer(source: ModelSource, spec: str, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """A chat model's tokenizer. Raises UserError when it cannot be read or has no chat template."""
    from transformers import AutoTokenizer

    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(
                str(source.folder),
                trust_remote_code=trust_remote_code,
                local_files_only=not trust_remote_code,
            )
    except Exception as error:  # whatever the files make transformers stumble over
        raise _load_error(source, spec, "tokenizer", error) from error
    if not tokenizer.chat_template:
        raise UserError(
            f"{spec} has no chat template, so it is not a chat model: choose its instruct or chat version."
        )
    return tokenizer


def _load_weights(
    source: ModelSource, spec: str, device: torch.device, dtype: torch.dtype, trust_remote_code: bool
) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    read = cast("Any", AutoModelForCausalLM.from_pretrained)  # its stated type leaves the loading report out
    # Straight to the device: a GPU's model need not fit in the computer's own memory first.
    placement: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    try:
        with quiet_transformers():
            model, info = read(
                str(source.folder),
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                local_files_only=not trust_remote_code,
                output_loading_info=True,
                **placement,
            )
    except Exception as error:  # whatever the files make transformers stumble over
        raise _load_error(source, spec, "model", error) from error
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would fill them with random numbers and only warn
        raise UserError(
            f"The weights of {spec} lack {len(missing)} tensors ({missing[0]} first): get them again."
        )
    return cast("PreTrainedModel", model.eval().requires_grad_(False))


def _load_error(source: ModelSource, spec: str, part: str, error: Exception) -> UserError:
    if "trust_remote_code" in str(error) and _brings_code(source.folder):
        return UserError(f"{spec} brings code of its own: pass --trust-remote-code if you trust its author.")
    if "out of memory" in str(error).lower():
        return UserError(
            f"{spec} does not fit in memory: choose a smaller model, another --device or --dtype bfloat16."
        )
    return UserError(
        f"The {part} of {spec} could not be loaded ({first_sentence(error)}): "
        "check its files and its model card."
    )


def _brings_code(folder: Path) -> bool:
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and '"auto_map"' in path.read_text(encoding="utf-8", errors="replace"):
            return True
    return False
