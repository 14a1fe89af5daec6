"""Reads a model's tokenizer and weights from its folder or file, after saying how much memory that takes."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from demo.models import gguf_import
from demo.models.memory import check_memory, folder_need, gguf_need
from demo.models.sources import ModelSource
from demo.models.transcript import give_transcript
from demo.utils.errors import UserError, first_sentence
from demo.utils.progress import Progress, quiet_transformers

if TYPE_CHECKING:  # torch and transformers take seconds to import, so they are imported where they are used
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# In transformers' error for a model that is not of the kind asked for.
_WRONG_CLASS = "Unrecognized configuration class"


def report_memory(
    source: ModelSource,
    spec: str,
    device: torch.device,
    dtype: torch.dtype,
    report: Progress,
    eight_bit: bool = False,
) -> None:
    """Say how much memory the model takes.

    Args:
        eight_bit: There is a second copy of the weights, of one byte each.

    Raises:
        UserError: There is not as much memory in all.
    """
    import torch

    if source.gguf is None:
        need = folder_need(source.folder, dtype.itemsize)
    else:
        need = gguf_need(source.gguf, dtype.itemsize)
    if need is not None and eight_bit:
        need = replace(need, weights=need.weights + need.weights // dtype.itemsize)
    if source.gguf is not None:
        check_memory(spec, need, torch.device("cpu"))  # where it is dequantised, whatever the device
    phrase = check_memory(spec, need, device)
    report(f"loading {spec}, which {phrase}" if phrase else f"loading {spec}", None)


def read_files(
    source: ModelSource,
    spec: str,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool,
    report: Progress,
    base: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model on its device, in evaluation mode and without gradients, and its tokenizer.

    Raises:
        UserError: They cannot be loaded, tensors are missing, or there is no chat template.
    """
    with gguf_import.shared_reader() if source.gguf else nullcontext():
        tokenizer = read_tokenizer(source, spec, trust_remote_code, report, base)
        model = _read_weights(source, spec, device, dtype, trust_remote_code, report)
    if source.gguf is not None and model.generation_config is not None:
        model.generation_config.eos_token_id = gguf_import.end_tokens(source.gguf, tokenizer)
    return model, tokenizer


def read_tokenizer(
    source: ModelSource, spec: str, trust_remote_code: bool, report: Progress, base: bool = False
) -> PreTrainedTokenizerBase:
    """A model's tokenizer, with a chat template.

    Args:
        base: Whether chats are plain transcripts, as for a pretrained model, whatever template there is.

    Raises:
        UserError: It cannot be read or has no chat template.
    """
    tokenizer = _read_tokenizer(source, spec, trust_remote_code, report, base)
    if base:
        give_transcript(tokenizer, spec)
    elif not tokenizer.chat_template:
        raise _no_template(spec)
    return tokenizer


def _read_tokenizer(
    source: ModelSource, spec: str, trust_remote_code: bool, report: Progress, base: bool
) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    if source.gguf is not None and not base and "tokenizer.chat_template" not in source.gguf.fields:
        raise _no_template(spec)  # before the tokenizer, which takes seconds to read
    try:
        with quiet_transformers():
            if source.gguf is not None:
                return gguf_import.read_tokenizer(source.gguf, spec, report)
            return AutoTokenizer.from_pretrained(
                str(source.folder),
                trust_remote_code=trust_remote_code,
                local_files_only=not trust_remote_code,
            )
    except Exception as error:  # unusable files can raise errors of any kind in transformers
        raise _load_error(source, spec, "tokenizer", error) from error


def _no_template(spec: str) -> UserError:
    return UserError(
        f"{spec} has no chat template, so it is not a chat model: choose its instruct or chat version, or "
        "give --base to python -m demo.extraction or python app.py to use it in plain transcripts."
    )


def _read_weights(
    source: ModelSource,
    spec: str,
    device: torch.device,
    dtype: torch.dtype,
    trust_remote_code: bool,
    report: Progress,
) -> PreTrainedModel:
    # Straight to the device, so that a GPU's model does not have to fit in main memory first.
    placement: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    try:
        with quiet_transformers():
            if source.gguf is not None:
                model, info = gguf_import.read_model(source.gguf, f"reading {spec}", dtype, report, placement)
            else:
                model, info = _read_folder(source.folder, dtype, trust_remote_code, placement)
    except UserError:
        raise
    except Exception as error:  # unusable files can raise errors of any kind in transformers
        raise _load_error(source, spec, "model", error) from error
    missing = sorted(info["missing_keys"])
    if missing:  # transformers would fill them with random numbers and only warn
        raise UserError(
            f"The weights of {spec} lack {len(missing)} tensors ({missing[0]} first): download them again."
        )
    return model.eval().requires_grad_(False)


def _read_folder(
    folder: Path, dtype: torch.dtype, trust_remote_code: bool, placement: dict[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model in `folder` and transformers' loading report."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    refused: Exception | None = None
    # Some models that also read images are not listed as language models, but answer text in the same way.
    for kind in (AutoModelForCausalLM, AutoModelForImageTextToText):
        read = cast("Any", kind.from_pretrained)  # its declared type leaves out the loading report
        try:
            return cast(
                "tuple[PreTrainedModel, dict[str, Any]]",
                read(
                    str(folder),
                    dtype=dtype,
                    use_safetensors=True,
                    trust_remote_code=trust_remote_code,
                    local_files_only=not trust_remote_code,
                    output_loading_info=True,
                    **placement,
                ),
            )
        except ValueError as error:
            if _WRONG_CLASS not in str(error):
                raise
            refused = error
    raise refused or ValueError(_WRONG_CLASS)


def _load_error(source: ModelSource, spec: str, part: str, error: Exception) -> UserError:
    if "trust_remote_code" in str(error) and _has_own_code(source.folder):
        return UserError(f"{spec} has code of its own: pass --trust-remote-code if you trust its author.")
    if _WRONG_CLASS in str(error):
        return UserError(f"{spec} does not write text token by token: choose a causal language model.")
    if "out of memory" in str(error).lower():
        return UserError(
            f"{spec} does not fit in memory: choose a smaller model, another --device or --dtype bfloat16."
        )
    return UserError(
        f"The {part} of {spec} could not be loaded ({first_sentence(error)}): "
        "check its files and its model card."
    )


def _has_own_code(folder: Path) -> bool:
    for name in ("config.json", "tokenizer_config.json"):
        path = folder / name
        if path.is_file() and '"auto_map"' in path.read_text(encoding="utf-8", errors="replace"):
            return True
    return False
