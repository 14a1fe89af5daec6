"""What vLLM is started with: the user's options, and what this program needs whatever they are."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from demo.models.loading import ModelFacts
from demo.utils.errors import UserError

# Before vLLM is imported. It would otherwise send usage statistics; its second model runner takes no processor that draws by itself.
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}

_FEW_CORES = 4


@dataclass(frozen=True)
class VllmOptions:
    """tensor_parallel, pipeline_parallel: over how many devices each layer's matrices, and the layers, are spread; memory_fraction:
    of each GPU; context: tokens, None for the model's own; quantization: as vLLM names it, None for what the checkpoint
    says; rows: replies at once; kv_bytes: of KV cache on a CPU; executor: "mp" for one machine, "ray" for several; more: any other
    argument of vLLM's `EngineArgs`, by name.
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
        taken = sorted(set(self.more) & set(_OURS))
        if taken:
            raise UserError(f"--vllm cannot set {', '.join(taken)}: capping and reading depend on it.")


# What capping and reading depend on, so that nobody may set it otherwise.
_OURS: dict[str, Any] = {
    "enforce_eager": True,  # a replayed graph would skip the hooks
    "enable_prefix_caching": True,  # per intervention: each has its own salt
    "async_scheduling": False,  # a token must be known before the next one is drawn
    "worker_extension_cls": "demo.engine.vllm.worker.AxisWorker",
    "logits_processors": ["demo.engine.vllm.sampler:SharedNoise"],
    "skip_tokenizer_init": True,  # tokens go in and out
    "disable_log_stats": True,
    "speculative_config": None,
}


def engine_arguments(facts: ModelFacts, options: VllmOptions) -> dict[str, Any]:
    """Arguments of vLLM's `AsyncEngineArgs`. Raises UserError where vLLM would not say plainly what is wrong."""
    context, budget = options.context or facts.context, options.kv_bytes
    if facts.device == "cpu" and context * facts.token_bytes > budget:
        raise UserError(
            f"A conversation of {context} tokens takes {context * facts.token_bytes / 2**30:.2f} GiB of KV cache and "
            f"{budget / 2**30:.2f} GiB are allowed: raise --kv-budget, or set --max-model-len to at most {budget // facts.token_bytes}."
        )
    arguments = {
        "model": str(facts.folder),
        "dtype": str(facts.dtype).removeprefix("torch."),
        "tensor_parallel_size": options.tensor_parallel,
        "pipeline_parallel_size": options.pipeline_parallel,
        "max_model_len": context,
        "max_num_seqs": options.rows,
        "quantization": options.quantization,
        "gpu_memory_utilization": options.memory_fraction,
        **_OURS,
        "additional_config": {"special_tokens": sorted(facts.tokenizer.all_special_ids)},
    }
    if facts.device == "cpu":
        arguments["kv_cache_memory_bytes"] = budget
    if options.executor:
        arguments["distributed_executor_backend"] = options.executor
    return arguments | options.more


def prepare_environment(facts: ModelFacts, options: VllmOptions) -> None:
    """Set what vLLM reads from the environment; what the user has set stays, but for what this program cannot do without."""
    os.environ.update(_ENVIRONMENT)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    if facts.device != "cpu":
        return
    if (os.cpu_count() or 1) <= _FEW_CORES:
        os.environ.setdefault("VLLM_CPU_NUM_OF_RESERVED_CPU", "0")  # it would leave one idle
    if options.tensor_parallel * options.pipeline_parallel > 1:
        # Its own way of giving each process some cores fails where there are as many processes as cores.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("OMP_NUM_THREADS", "1")
