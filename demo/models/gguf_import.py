"""Reads tokenizer and weights from a GGUF file with transformers, and restores what that import loses."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demo.models.gguf_file import GgufHeader
from demo.models.pre_tokenizers import PRE_TOKENIZERS, correct_tokenizer
from demo.utils.errors import UserError
from demo.utils.progress import Progress, quiet_transformers

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported where they are used
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Control tokens that end a turn in some chat format. A file states only one or two of them as such.
_END_OF_TURN = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "<|EOT|>",
)

_STEPS = 20  # how often the progress of reading is reported; in a log, each report is a line

# Layers of the models whose attention is scaled by the width per head, hidden size / heads, instead of by the
# key length; llama.cpp tells them by the same numbers.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}


def read_tokenizer(header: GgufHeader, spec: str, progress: Progress) -> PreTrainedTokenizerBase:
    """The tokenizer in a GGUF file, corrected. Says through `progress` when it may differ from training."""
    from transformers import AutoTokenizer

    progress(f"reading the tokenizer of {spec}", None)
    with quiet_transformers(), shared_reader(), _alone(header.path) as path:
        tokenizer = AutoTokenizer.from_pretrained(
            str(path.parent), gguf_file=path.name, trust_remote_code=False
        )
    if header.fields.get("tokenizer.ggml.model") == "gpt2":
        name = str(header.fields.get("tokenizer.ggml.pre"))
        if name in PRE_TOKENIZERS:
            correct_tokenizer(tokenizer, PRE_TOKENIZERS[name])
        else:
            progress(
                f"note: {spec} names the pre-tokenizer {name!r}, whose rules are not known here, so text may "
                "be split into other tokens than in training",
                None,
            )
    elif header.fields.get("tokenizer.ggml.add_space_prefix") is False:
        _drop_space_prefix(tokenizer)
    context = header.own("context_length")
    if context:
        tokenizer.model_max_length = int(context)
    return tokenizer


def read_model(
    header: GgufHeader,
    message: str,
    dtype: torch.dtype,
    progress: Progress,
    placement: dict[str, Any] | None = None,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model in a GGUF file, all weights dequantised to `dtype`, and transformers' loading report.

    Args:
        header: What the file states.
        message: What is being done, for `progress`.
        dtype: Number format of the weights.
        progress: Receives the share of the tensors that are dequantised.
        placement: transformers' arguments for a device other than the CPU.

    Raises:
        UserError: The file asks for a position encoding that cannot be restored.
    """
    import transformers

    wanted = getattr(transformers, "GgufConfig", None)  # absent from older releases, which always dequantise
    options = {"quantization_config": wanted(dequantize=True)} if wanted is not None else {}
    with (
        quiet_transformers(),
        shared_reader(),
        _alone(header.path) as path,
        _dequantising_progress(message, progress),
    ):
        folder, name = str(path.parent), path.name
        config = transformers.AutoConfig.from_pretrained(folder, gguf_file=name, trust_remote_code=False)
        _correct_config(config, header)
        read: Any = transformers.AutoModelForCausalLM.from_pretrained
        model, report = read(
            folder,
            gguf_file=name,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            **options,
            **(placement or {}),
        )
    _correct_frequencies(model, header)
    # transformers still takes a model that was read from GGUF for quantised, and refuses to save it.
    for owner, attribute in (
        (model.config, "quantization_config"),
        (model, "hf_quantizer"),
        (model, "is_quantized"),
    ):
        owner.__dict__.pop(attribute, None)
    model.config.__dict__.pop("_model_name_or_path", None)  # the GGUF file's internal name
    return model, report


def end_tokens(header: GgufHeader, tokenizer: Any) -> list[int]:
    """Ids of the tokens that end a reply: those that the file states, and control tokens known for it."""
    stated = [header.fields.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot", "eom")]
    control = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    named = [tokenizer.convert_tokens_to_ids(token) for token in _END_OF_TURN if token in control]
    return sorted({int(token) for token in (*stated, *named) if token is not None})


def _drop_space_prefix(tokenizer: Any) -> None:
    """Undo the space that SentencePiece tokenizers put before a text, where the file says there is none."""
    from tokenizers import decoders
    from tokenizers.pre_tokenizers import Metaspace

    backend = tokenizer.backend_tokenizer
    if isinstance(backend.pre_tokenizer, Metaspace):
        backend.pre_tokenizer = Metaspace(prepend_scheme="never", split=False)
        # The imported decoder takes a text's first space away, which would then be the text's own.
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        backend.decoder = decoders.Sequence(steps)


def _correct_config(config: Any, header: GgufHeader) -> None:
    """Restore what the file states and the import of some architectures leaves out."""
    key_length = header.own("attention.key_length")
    if key_length and hasattr(config, "head_dim"):
        config.head_dim = int(key_length)
    if _SCALED_BY_WIDTH.get(header.architecture) == header.own("block_count") is not None:
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    kind = "longrope" if "rope_factors_long.weight" in header.tensors else header.own("rope.scaling.type")
    if kind in (None, "none"):
        return
    scaling = {"rope_type": kind, "factor": float(header.own("rope.scaling.factor") or 1.0)}
    original = header.own("rope.scaling.original_context_length")
    if kind == "yarn" and original:
        scaling["original_max_position_embeddings"] = int(original)
    elif kind != "linear":
        raise UserError(
            f"{header.path} scales its position encoding by {kind!r}, which cannot be restored from GGUF: "
            "pass the model as a folder with safetensors weights."
        )
    # Gemma 3 keeps separate settings for its two kinds of layers, and scales only those with full attention.
    parameters = config.rope_parameters
    parameters.get("full_attention", parameters).update(scaling)


def _correct_frequencies(model: Any, header: GgufHeader) -> None:
    """Divide the rotary frequencies by the factors in the file, with which Llama 3.1 and later are scaled."""
    stored = header.tensors.get("rope_freqs.weight")
    if stored is None or header.architecture != "llama":
        return
    import numpy as np
    import torch

    start = header.data_start + stored.offset
    factors = np.fromfile(header.path, "<f4", stored.elements, offset=start)  # always stored as float32
    rotary = model.model.rotary_emb
    for name in ("inv_freq", "original_inv_freq"):
        frequencies = getattr(rotary, name, None)
        if isinstance(frequencies, torch.Tensor):
            setattr(rotary, name, frequencies / torch.from_numpy(factors).to(frequencies))


@contextmanager
def shared_reader() -> Iterator[None]:
    """Let transformers parse a file's header once, and three times faster, instead of once per part.

    Blocks may be nested: the outermost keeps what was parsed.
    """
    import gguf
    import numpy as np

    original: Any = gguf.GGUFReader
    if not isinstance(original, type):
        yield
        return

    class PlainReader(original):
        data: Any

        def _get(self, *args: Any, **kwargs: Any) -> Any:
            if isinstance(self.data, np.memmap):  # slicing one is slow, and a vocabulary has many slices
                self.data = self.data.view(np.ndarray)
            return super()._get(*args, **kwargs)

    parse = functools.cache(PlainReader)
    setattr(gguf, "GGUFReader", lambda path, *_: parse(os.path.realpath(path)))  # noqa: B010
    try:
        yield
    finally:
        setattr(gguf, "GGUFReader", original)  # noqa: B010


@contextmanager
def _alone(path: Path) -> Iterator[Path]:
    """A link to the file in a folder of its own: transformers would also read tokenizer files beside it."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / path.name
        try:
            link.symlink_to(path.resolve())
        except OSError:  # not allowed to every user of Windows
            link = path
        yield link


@contextmanager
def _dequantising_progress(message: str, progress: Progress) -> Iterator[None]:
    """Let the GGUF reader report to `progress` instead of its own bar, which cannot be switched off."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def report(tensors: Any, **_: Any) -> Iterator[Any]:
        shown = -1
        for done, tensor in enumerate(tensors):
            step = _STEPS * done // len(tensors)
            if step > shown:
                shown = step
                progress(message, step / _STEPS)
            yield tensor
        progress(message, 1.0)

    original = getattr(reader, "tqdm", None)
    setattr(reader, "tqdm", report)  # noqa: B010 - type checkers do not see the name in that module
    try:
        yield
    finally:
        setattr(reader, "tqdm", original)  # noqa: B010
