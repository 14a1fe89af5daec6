"""Load a language model by name, with what capping needs to know about it: its decoder layers and width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from demo.models.architectures import context_window, find_decoder_layers, token_bytes
from demo.models.chat_template import stop_tokens
from demo.models.default import DEFAULT_MODEL
from demo.models.default_download import Progress
from demo.models.devices import pick_device, pick_dtype
from demo.models.sources import ModelSource, find_source, first_sentence
from demo.utils.errors import UserError
from demo.utils.progress import quiet_transformers

if TYPE_CHECKING:  # torch and transformers take seconds to import: only a load pays for them
    import torch
    from torch import nn
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerBase


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


@dataclass(frozen=True)
class ModelFacts:
    """A model that is in a folder but not in this process. The names are those of `LoadedModel`; token_bytes: of one token's
    keys and values at all layers; stops: token ids that end a reply."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    spec: str
    slug: str
    layer_count: int
    hidden_size: int
    context: int
    architecture: str
    revision: str | None
    device: str
    dtype: torch.dtype
    dtype_reason: str
    token_bytes: int
    stops: frozenset[int]


def read_facts(
    spec: str, *, dtype: str = "auto", trust_remote_code: bool = False, progress: Progress | None = None
) -> ModelFacts:
    """Find a model as `load_model` does, downloading it where needed, and read everything but its weights.

    Raises UserError with one sentence saying what is wrong and what to do.
    """
    from transformers import AutoConfig

    report = progress or (lambda message, fraction: None)
    device = pick_device("auto")
    kind, reason = pick_dtype(dtype, device)
    source = find_source(spec, cache_dir=None, trust_remote_code=trust_remote_code, progress=report)
    tokenizer = load_tokenizer(source, spec, trust_remote_code)
    try:
        whole = AutoConfig.from_pretrained(str(source.folder), trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever the file makes transformers stumble over
        raise UserError(f"The config.json of {spec} cannot be read ({first_sentence(error)}).") from error
    config = whole.get_text_config()
    return ModelFacts(
        folder=source.folder,
        tokenizer=tokenizer,
        spec=spec,
        slug=source.slug,
        layer_count=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        context=context_window(config, tokenizer),
        architecture=(whole.architectures or [type(whole).__name__])[0],
        revision=source.revision,
        device=device.type,
        dtype=kind,
        dtype_reason=reason,
        token_bytes=token_bytes(config, kind.itemsize),
        stops=stop_tokens(_generation_settings(source.folder), tokenizer),
    )


def _generation_settings(folder: Path) -> GenerationConfig | None:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(str(folder))
    except OSError:  # there are none
        return None
