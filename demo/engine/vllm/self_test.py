"""Before anybody is served: does the cap truly act in vLLM's workers, once, on the whole residual stream?

Every way of getting this wrong looks right on a page: a hook that a graph replay skips, a layer whose summands mean something else than
expected, a rank that clamps its shard. So one short prompt is run uncapped, under a floor out of reach from above, and under a floor
it cannot help but meet, and what the next decoder layer is really given is compared with what the clamp promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demo.axis.axis import AssistantAxis
from demo.engine.protocol import Sampling
from demo.engine.vllm.recorder import SequencePlan, merged
from demo.models.chat_template import Message, render_chat
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.engine.vllm.client import VllmClient

_PROMPT: list[Message] = [{"role": "user", "content": "Who are you, and what do you want from me?"}]

_TOLERANCE = 0.05  # of the lift, or of the stream's length for the norm: bfloat16 rounds to a half percent

_LIFT = 2.0  # axis units above the highest projection: well clear of rounding

_NEVER = -1e30  # raw units

Seen = dict[str, np.ndarray]


async def run_self_test(core: VllmClient) -> None:
    """Raises UserError, saying what is wrong, unless capping and reading do in vLLM what they should."""
    axis = core.axis
    chat = render_chat(core.facts.tokenizer, _PROMPT)
    content = np.array([owner >= 0 for owner in chat.owner])

    async def run(name: str, layer: int = 0, floor: float | None = None) -> Seen:
        return await _read(core, chat.ids, _plan(name, content, None if floor is None else (layer, floor)))

    plain, again = await run("plain"), await run("again")
    if any(f"at.{n}" not in seen for n in range(axis.layers) for seen in (plain, again)):
        raise _refuse("some decoder layers are not explain_failure about")
    # The first capped layer, unless the next one is in another process, where what it is given cannot be looked at.
    first = axis.cap_band[0]
    layer = next((n for n in (*range(first, axis.layers), *range(first)) if f"entry.{n}" in plain), None)
    if layer is None:
        raise _refuse("what a decoder layer is given cannot be seen")
    idle = await run("idle", layer, _NEVER)
    at = plain[f"at.{layer}"]
    floor = float(at[content].max() + _LIFT * float(axis.norm[layer]))
    capped = await run("capped", layer, floor)
    errors = [error for rank in await core.call("axis_end_self_test") for error in rank]

    if not errors or max(errors) > _TOLERANCE:
        raise _refuse("the residual stream of the last decoder layer is not what the final norm gets")
    noise = _apart(plain, again, axis)
    if noise > _TOLERANCE:
        raise _refuse("the same prompt read twice differs")
    if (
        _apart(plain, idle, axis) > 2 * noise
    ):  # nothing at all where the model itself gives the same bits every time
        raise _refuse("a cap that has nothing to do changes the model")
    lift = floor - at[content]
    if np.abs(capped[f"lift.{layer}"][content] - lift).max() > _TOLERANCE * lift.max():
        raise _refuse("the clamp adds something else than the floor asks for")
    if capped[f"lift.{layer}"][~content].any():
        raise _refuse("the clamp acts on template tokens")
    if np.abs(capped[f"entry.{layer}"][content] - floor).max() > _TOLERANCE * lift.max():
        raise _refuse("the next decoder layer does not get the clamped residual stream")


def _apart(one: Seen, other: Seen, axis: AssistantAxis) -> float:
    """The largest difference of a projection at any decoder layer, axis units."""
    return max(
        float(np.abs(one[f"at.{n}"] - other[f"at.{n}"]).max()) / float(axis.norm[n])
        for n in range(axis.layers)
    )


def _refuse(what: str) -> UserError:
    return UserError(
        f"The cap cannot be trusted in this vLLM ({what}), so it is not used: choose another version or model, "
        "or --engine transformers."
    )


def _plan(name: str, content: np.ndarray, cap: tuple[int, float] | None) -> SequencePlan:
    layers, floors = ((cap[0],), (cap[1],)) if cap else ((), ())
    exempt = (~content).astype(np.uint8).tobytes()
    return SequencePlan(f"check-{name}", exempt, Sampling(temperature=0), layers, floors, every_layer=True)


async def _read(core: VllmClient, ids: list[int], plan: SequencePlan) -> Seen:
    """Everything seen of a prompt, each quantity with one number per token. All workers that tell of something must agree."""
    async for _ in core.steps(ids, plan, 1, read_cache=False):
        pass
    ranks = [records for records, _ in await core.call("axis_drain")]
    whole: dict[str, np.ndarray] = {}
    for id_, start, explain_failure in merged(ranks):
        for name, data in explain_failure.items() if id_ == plan.id else ():
            values = np.frombuffer(data, np.float32)
            whole.setdefault(name, np.zeros(len(ids), np.float32))[start : start + len(values)] = values
    for records in ranks:
        for _, start, explain_failure in records:
            for name, data in explain_failure.items():
                values = np.frombuffer(data, np.float32)
                if not np.allclose(values, whole[name][start : start + len(values)], rtol=1e-3, atol=1e-3):
                    raise UserError(
                        "vLLM's processes disagree about the same residual stream, so the cap cannot be trusted in them."
                    )
    return whole
