"""What an engine that loads the weights elsewhere has to know about a model: its tokenizer, its shape, its window."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from demo.default_download import Progress
from demo.devices import pick_device, pick_dtype
from demo.errors import UserError
from demo.model_sources import find_source, first_sentence
from demo.models import context_window, load_tokenizer, stop_tokens, token_bytes

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig, PreTrainedTokenizerBase


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
