"""The arguments and environment variables with which vLLM is started."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from demo.models.chat_template import special_tokens
from demo.models.loading import ModelFacts
from demo.utils.errors import UserError

# Set before vLLM is imported. It would otherwise send usage statistics, and its second model runner
# accepts no logits processor that samples by itself.
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}

# What capping and reading depend on. The user cannot change it.
_FIXED_ARGUMENTS: dict[str, Any] = {
    # CUDA graphs stay off. A replayed graph does not run Python, so our hooks, which read each request's
    # floors in Python, would act with the values of the capture. docs/large-models.md says what is missing.
    "enforce_eager": True,
    "enable_prefix_caching": True,  # separate per intervention, because each has its own cache salt
    "async_scheduling": False,  # a token must be known before the next one is sampled
    "worker_extension_cls": "demo.engine.vllm.worker.AxisWorker",
    "logits_processors": ["demo.engine.vllm.sampler:SharedNoise"],
    "skip_tokenizer_init": True,  # token ids go in and out
    "disable_log_stats": True,
    "speculative_config": None,
}

_FEW_CORES = 4


@dataclass(frozen=True)
class VllmOptions:
    """What the user can choose.

    Attributes:
        tensor_parallel: Over how many devices each layer's matrices are spread.
        pipeline_parallel: Over how many stages the layers are spread.
        memory_fraction: The share of each GPU's memory that vLLM may use.
        context: The context window in tokens; None for the model's own.
        quantization: The method, as vLLM names it; None for what the checkpoint says.
        rows: How many sequences may run at once.
        kv_bytes: The size of the KV cache on a CPU.
        executor: "mp" for one machine, "ray" for several; None for vLLM's choice.
        more: Any other arguments of vLLM's `EngineArgs`, by name.

    Raises:
        UserError: A value is out of range, or `more` sets an argument that capping and reading depend on.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    memory_fraction: float = 0.9
    context: int | None = None
    quantization: str | None = None
    rows: int = 128
    kv_bytes: int = 2 * 1024**3
    executor: str | None = None
    more: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1 or self.pipeline_parallel < 1:
            raise UserError("--tensor-parallel and --pipeline-parallel must be at least 1.")
        if not 0 < self.memory_fraction <= 1:
            raise UserError(f"--gpu-memory must lie between 0 and 1, not {self.memory_fraction}.")
        if self.context is not None and self.context < 16:
            raise UserError(f"--max-model-len must be at least 16 tokens, not {self.context}.")
        taken = sorted(set(self.more) & set(_FIXED_ARGUMENTS))
        if taken:
            raise UserError(
                f"--vllm cannot set {', '.join(taken)}, because capping and reading depend on it: "
                "leave it out."
            )


def engine_arguments(facts: ModelFacts, options: VllmOptions) -> dict[str, Any]:
    """The arguments for vLLM's `AsyncEngineArgs`.

    Raises:
        UserError: The KV cache is too small for one conversation, which vLLM would not say plainly.
    """
    context, budget = options.context or facts.context, options.kv_bytes
    if facts.device == "cpu" and context * facts.token_bytes > budget:
        raise UserError(
            f"A conversation of {context} tokens takes {context * facts.token_bytes / 2**30:.2f} GiB "
            f"of KV cache and {budget / 2**30:.2f} GiB are allowed: raise --kv-budget, "
            f"or set --max-model-len to at most {budget // facts.token_bytes}."
        )
    arguments = {
        "model": str(facts.folder),
        "dtype": facts.dtype_name,
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "max_model_len": context,
        "max_num_seqs": options.rows,
        "quantization": options.quantization,
        "gpu_memory_utilization": options.memory_fraction,
        **_FIXED_ARGUMENTS,
        "additional_config": {"special_tokens": sorted(special_tokens(facts.tokenizer) | facts.stops)},
    }
    if facts.device == "cpu":
        arguments["kv_cache_memory_bytes"] = budget
    if options.executor:
        arguments["distributed_executor_backend"] = options.executor
    return arguments | options.more


def prepare_environment(facts: ModelFacts, options: VllmOptions) -> None:
    """Set the environment variables that vLLM reads.

    The user's own values stay, except those of variables that this program depends on.
    """
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if facts.device != "cpu":
        return
    if (os.cpu_count() or 1) <= _FEW_CORES:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # vLLM would leave one core idle
    if options.tensor_parallel * options.pipeline_parallel > 1:
        # vLLM's way of binding each process to some cores fails where there are as many processes as cores.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
