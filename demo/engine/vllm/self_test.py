"""A self-test before any client is served: does the cap act in vLLM's workers as it should?

A mistake here would not show on the page: a hook that a CUDA graph skips, a layer whose summands
mean something else than expected, a worker that clamps only its shard, or a clamp that acts twice.
So one short prompt is run uncapped, with a floor so low that it never acts, and with a floor so
high that it always acts. What the next decoder layer is really given is then compared with what the
clamp promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Sampling
from demo.engine.vllm.recorder import SequencePlan, decode, merge_records
from demo.models.chat_template import Message, render_chat
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.engine.vllm.client import VllmClient

_PROMPT: list[Message] = [{"role": "user", "content": "Who are you, and what do you want from me?"}]

# Relative to the lift, or to the length of the residual stream at the norm. bfloat16 rounds to half
# a percent.
_TOLERANCE = 0.05

_LIFT = 2.0  # axis units above the highest projection: far more than rounding

_INACTIVE_FLOOR = -1e30  # raw units

# For each quantity (see `recorder.Record`), one number per prompt token.
Readings = dict[str, np.ndarray]


async def run_self_test(client: VllmClient) -> None:
    """Check that capping and reading work in vLLM as they should.

    Raises:
        UserError: They do not. The sentence says what is wrong.
    """
    axis = client.axis
    chat = render_chat(client.facts.tokenizer, _PROMPT)
    content = np.array([owner >= 0 for owner in chat.owner])

    async def run(name: str, cap: tuple[int, float] | None = None) -> Readings:
        return await _read(client, chat.ids, _plan(name, content, cap))

    plain, again = await run("plain"), await run("again")
    if any(f"at.{n}" not in readings for n in range(axis.layers) for readings in (plain, again)):
        raise _untrusted("some decoder layers are not recorded")
    layer = _test_layer(axis, plain)
    idle = await run("idle", (layer, _INACTIVE_FLOOR))
    at = plain[f"at.{layer}"]
    floor = float(at[content].max() + _LIFT * float(axis.norm[layer]))
    capped = await run("capped", (layer, floor))
    errors = [error for rank in await client.call("axis_end_self_test") for error in rank]

    if not errors or max(errors) > _TOLERANCE:
        raise _untrusted("the residual stream of the last decoder layer is not what the final norm gets")
    noise = _difference(plain, again, axis)
    if noise > _TOLERANCE:
        raise _untrusted("the same prompt read twice differs")
    # Where the model gives the same bits every time, this allows no difference at all.
    if _difference(plain, idle, axis) > 2 * noise:
        raise _untrusted("a cap that has nothing to do changes the model")
    lift = floor - at[content]
    if np.abs(capped[f"lift.{layer}"][content] - lift).max() > _TOLERANCE * lift.max():
        raise _untrusted("the clamp adds something else than the floor asks for")
    if capped[f"lift.{layer}"][~content].any():
        raise _untrusted("the clamp acts on template tokens")
    if np.abs(capped[f"entry.{layer}"][content] - floor).max() > _TOLERANCE * lift.max():
        raise _untrusted("the next decoder layer does not get the clamped residual stream")


def _test_layer(axis: AssistantAxis, plain: Readings) -> int:
    """The decoder layer to cap in the test.

    This is the first capped layer. When the next layer runs in another process, its input cannot be
    read; then it is another layer whose successor's input can.
    """
    first = axis.cap_band[0]
    for layer in (*range(first, axis.layers), *range(first)):
        if f"entry.{layer}" in plain:
            return layer
    raise _untrusted("what a decoder layer is given cannot be read")


def _difference(one: Readings, other: Readings, axis: AssistantAxis) -> float:
    """The largest difference between projections at any decoder layer, axis units."""
    return max(
        float(np.abs(one[f"at.{n}"] - other[f"at.{n}"]).max()) / float(axis.norm[n])
        for n in range(axis.layers)
    )


def _untrusted(reason: str) -> UserError:
    return UserError(
        f"The cap cannot be trusted in this vLLM ({reason}), so it is not used: "
        "choose another version or model, or --engine transformers."
    )


def _plan(name: str, content: np.ndarray, cap: tuple[int, float] | None) -> SequencePlan:
    layers, floors = ((cap[0],), (cap[1],)) if cap else ((), ())
    exempt = (~content).astype(np.uint8).tobytes()
    return SequencePlan(f"check-{name}", exempt, Sampling(temperature=0), layers, floors, every_layer=True)


async def _read(client: VllmClient, ids: list[int], plan: SequencePlan) -> Readings:
    """Everything that the workers record of a prompt. Raises UserError when their numbers differ."""
    async for _ in client.steps(ids, plan, 1, read_cache=False):
        pass
    ranks = [records for records, _ in await client.call("axis_drain")]
    readings: Readings = {}
    for request, start, columns in merge_records(ranks):
        if request != plan.id:
            continue
        for name, values in decode(columns).items():
            whole = readings.setdefault(name, np.zeros(len(ids), np.float32))
            whole[start : start + len(values)] = values
    for records in ranks:
        for _, start, columns in records:
            for name, values in decode(columns).items():
                expected = readings[name][start : start + len(values)]
                if not np.allclose(values, expected, rtol=1e-3, atol=1e-3):
                    raise UserError(
                        "vLLM's processes disagree about the same residual stream, "
                        "so the cap cannot be trusted in them."
                    )
    return readings
