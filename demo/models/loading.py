"""Loading a language model, or only the facts about it: the default model, a folder, a file or a hub id."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from demo.models.architectures import context_window, find_decoder_layers, token_bytes
from demo.models.chat_template import listed_ends, reasoning_format, stop_tokens
from demo.models.default import DEFAULT_MODEL
from demo.models.devices import INT8, pick_device, pick_dtype
from demo.models.reading import read_files, read_tokenizer, report_memory
from demo.models.sources import find_source
from demo.models.template_text import template_digest
from demo.models.transcript import is_transcript
from demo.utils.errors import UserError, first_sentence
from demo.utils.fair_lock import FairLock
from demo.utils.progress import Progress

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported where they are used
    import torch
    from torch import nn
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase


# Whether a model reasons before it answers: not at all, when it is asked to, or always.
Thinking = Literal["never", "optional", "always"]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run: in evaluation mode, without gradients, on its device.

    Attributes:
        model: The transformers model.
        tokenizer: Its tokenizer, with a chat template.
        spec: What the user asked for.
        slug: The last part of `spec` in lower case with only a-z, 0-9, dot and hyphen: a safe file name.
        layers: The decoder layers in order; each outputs the residual stream [batch, seq, hidden_size].
        hidden_size: Width of the residual stream.
        context: The context window, in tokens.
        architecture: The model's class name, such as LlamaForCausalLM.
        revision: SHA-256 of a GGUF file, a hub commit hash, or None for a local folder.
        device: Where the weights are.
        dtype: Number format of weights and residual stream.
        dtype_reason: Why that format was chosen, as a phrase for the start-up line.
        eight_bit: Whether the weights are rounded to 8 bits. They are still kept in `dtype`.
        turn: Held during every forward pass, so that several engines can run the model in turns.
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
    eight_bit: bool = False
    turn: FairLock = field(default_factory=FairLock, repr=False, compare=False)

    @property
    def dtype_name(self) -> str:
        """The number format's name, such as float32."""
        return INT8 if self.eight_bit else str(self.dtype).removeprefix("torch.")

    @property
    def layer_count(self) -> int:
        """Number of decoder layers."""
        return len(self.layers)

    @property
    def stops(self) -> frozenset[int]:
        """Token ids that end a reply."""
        return stop_tokens(self.model.generation_config, self.tokenizer)

    @property
    def listed_ends(self) -> frozenset[int]:
        """Those of `stops` that the model's files list, rather than its chat template shows."""
        return listed_ends(self.model.generation_config, self.tokenizer)

    @property
    def thinking(self) -> Thinking:
        """Whether the model reasons before it answers."""
        return thinking_of(self.tokenizer)

    @property
    def base(self) -> bool:
        """Whether chats are plain transcripts instead of a chat model's format."""
        return is_transcript(self.tokenizer)

    @property
    def template(self) -> str:
        """A digest of the chat template. See `template_digest`."""
        return template_digest(self.tokenizer)

    @cached_property
    def digest(self) -> str | None:
        """A digest of the weights. See `weights_digest`."""
        from demo.models.digest import weights_digest

        return weights_digest(self.model)

    @cached_property
    def cache_argument(self) -> str:
        """The name of `forward`'s KV cache argument, renamed in transformers 5.24; 5.40 will drop the old."""
        return "cache" if "cache" in signature(self.model.forward).parameters else "past_key_values"

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's keys and values at all decoder layers."""
        return token_bytes(self.model.config.get_text_config(), self.dtype.itemsize)


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model whose weights another process loads.

    The attributes mean the same as those of `LoadedModel`, and:

    Attributes:
        folder: The folder that holds the model's files.
        layer_count: Number of decoder layers.
        token_bytes: Bytes of one token's keys and values at all decoder layers.
        stops, listed_ends: See `LoadedModel`.
    """

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
    listed_ends: frozenset[int]

    @property
    def dtype_name(self) -> str:
        """The number format's name, such as float32."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def base(self) -> bool:
        """Whether chats are plain transcripts instead of a chat model's format."""
        return is_transcript(self.tokenizer)

    @property
    def template(self) -> str:
        """A digest of the chat template. See `template_digest`."""
        return template_digest(self.tokenizer)

    @property
    def digest(self) -> str | None:
        """None: the weights are elsewhere."""
        return None

    @property
    def thinking(self) -> Thinking:
        """See `LoadedModel`."""
        return thinking_of(self.tokenizer)


def load_model(
    spec: str = DEFAULT_MODEL,
    *,
    device: str = "auto",
    dtype: str = "auto",
    trust_remote_code: bool = False,
    cache_dir: Path | None = None,
    progress: Progress | None = None,
    base: bool = False,
) -> LoadedModel:
    """Load the default model, a local folder, a GGUF file or a hub model, with its tokenizer.

    Args:
        spec: `smollm2-135m-instruct`, a folder, a GGUF file, or `owner/name`.
        device: auto, cpu, cuda, cuda:N or mps.
        dtype: auto, float32, bfloat16, float16, or int8 for weights of 8 bits on a CPU.
        trust_remote_code: Whether code in the model's repository may run.
        cache_dir: Where to keep the default model and hub downloads, instead of the user's caches.
        progress: Called with a message and a fraction 0..1, or None where that is unknown.
        base: Whether chats are plain transcripts instead of the model's own format. See
            `demo.models.transcript`.

    Raises:
        UserError: The model, the device or the number format cannot be used.
    """
    report = progress or _no_progress
    target = pick_device(device)  # checked before anything is downloaded
    kind, reason = pick_dtype(dtype, target)
    source = find_source(spec, cache_dir=cache_dir, trust_remote_code=trust_remote_code, progress=report)
    report_memory(source, spec, target, kind, report, eight_bit=dtype == INT8)
    model, tokenizer = read_files(source, spec, target, kind, trust_remote_code, report, base)
    config = model.config.get_text_config()
    loaded = LoadedModel(
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
        eight_bit=dtype == INT8,
    )
    # Now, because a forward pass may lay the weights out in another way.
    assert loaded.digest
    if loaded.eight_bit:
        from demo.models.eight_bit import round_weights

        round_weights(model)
    return loaded


def read_facts(
    spec: str,
    *,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    base: bool = False,
) -> ModelFacts:
    """Find a model as `load_model` does, downloading it where needed, and read everything but its weights.

    Raises:
        UserError: The model or the number format cannot be used.
    """
    from transformers import AutoConfig

    if dtype == INT8:
        raise UserError("int8 is a format of the transformers engine: leave out --dtype, or --engine vllm.")
    device = pick_device("auto")
    kind, reason = pick_dtype(dtype, device)
    source = find_source(
        spec, cache_dir=None, trust_remote_code=trust_remote_code, progress=progress or _no_progress
    )
    if source.gguf is not None:
        raise UserError(
            f"vLLM does not load the GGUF file {spec} here: pass a folder or a hub id with safetensors "
            "weights, or leave out --engine vllm."
        )
    tokenizer = read_tokenizer(source, spec, trust_remote_code, progress or _no_progress, base)
    try:
        whole = AutoConfig.from_pretrained(str(source.folder), trust_remote_code=trust_remote_code)
    except Exception as error:  # an unusable file can raise errors of any kind in transformers
        raise UserError(
            f"The config.json of {spec} cannot be read ({first_sentence(error)}): download the model again."
        ) from error
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
        listed_ends=listed_ends(_generation_settings(source.folder), tokenizer),
    )


def thinking_of(tokenizer: PreTrainedTokenizerBase) -> Thinking:
    """Whether the model with this tokenizer and chat template reasons before it answers."""
    marks = reasoning_format(tokenizer)
    if marks is None:
        return "never"
    return "optional" if marks.switch else "always"


def _no_progress(message: str, fraction: float | None) -> None:
    """For callers that show no progress."""


def _generation_settings(folder: Path) -> GenerationConfig | None:
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(str(folder))
    except OSError:  # the model has none
        return None
