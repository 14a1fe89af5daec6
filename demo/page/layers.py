"""A reply at every decoder layer: as its branch reads it, and as the unsteered model does."""

from __future__ import annotations

from dataclasses import replace

from demo.axis.axis import AssistantAxis
from demo.conversation.conversation import Conversation, message_of
from demo.conversation.layers import Layers, below_floor, layers_json, rounded_rows
from demo.conversation.session_file import rounded
from demo.conversation.settings import CAPPED, STEERED, TurnSettings
from demo.engine.protocol import Cap, Engine, Message, ReadToken, Request
from demo.page.stage.protocol import Operation, operation
from demo.utils.errors import UserError

_ALWAYS = 1e6  # axis units; every reply begins below it


def layers_op(
    engine: Engine,
    axis: AssistantAxis,
    conversation: Conversation,
    index: int,
    branch: str,
    settings: TurnSettings,
) -> Operation:
    """Show the reply of one branch in turn `index` layer by layer.

    It is read once; then the reply keeps what was read, and so does a session file.

    Args:
        settings: those of the turn.

    Raises:
        UserError: the branch has no reply in this turn, or the chat does not fit the context window.
    """
    turn = conversation.turns[index]
    if branch not in turn.replies or not any(token.text for token in turn.replies[branch].tokens):
        raise UserError("This branch has no reply in this turn.")
    reply = turn.replies[branch]
    layers = reply.layers or _read(engine, axis, _request(conversation, index, branch, settings), settings)
    if reply.finish is not None:
        reply.layers = layers
    fields = layers_json(layers)
    return operation("layers", turn=index, branch=branch, **{"plain": fields["own"], **fields})


def _read(engine: Engine, axis: AssistantAxis, own: Request, settings: TurnSettings) -> Layers:
    """Read the reply with which a request ends, under its intervention and without it."""
    plain = _read_reply(engine, replace(own, cap=None, also=None, steer=None))
    mine = _read_reply(engine, own) if own.is_steered else plain
    if not mine:
        raise UserError("The chat template leaves this reply out, so there is nothing to read.")
    # The turn's cap also for branches without one: the page marks its layers in all of them.
    cap = own.cap or settings.cap
    rows = [token.after for token in plain]
    raw = dict(zip(cap.layers, cap.floors, strict=True)) if cap else {}
    band = (cap.layers[0], cap.layers[-1]) if cap else None
    across = range(band[0], band[1] + 1) if band else ()
    floors = [axis.to_units(raw[layer], layer) if layer in raw else None for layer in across]
    return Layers(
        probe=axis.probe_layer,
        cap=band,
        floors=tuple(rounded(floor) for floor in floors),
        tokens=tuple(token.text for token in mine),
        reasoning=sum(token.reasoning for token in mine),
        own=rounded_rows([token.after for token in mine]),
        plain=rounded_rows(rows),
        below=below_floor(rows, band, floors),
    )


def _request(conversation: Conversation, index: int, branch: str, settings: TurnSettings) -> Request:
    """The request that reads an earlier reply under the intervention of its branch.

    Whether a conditional cap acts on the reply was decided when it was written. Templates may write another
    token before it once it is part of the chat.
    """
    turn = conversation.turns[index]
    start = turn.replies[branch].start

    def decided(cap: Cap | None) -> Cap | None:
        if cap is None or cap.only_below is None or start is None:
            return cap
        return replace(cap, only_below=_ALWAYS if cap.acts_from(start) else -_ALWAYS)

    messages = [
        *conversation.messages(branch, settings.prompt_in(branch), index),
        Message(role="user", content=turn.user),
        message_of(turn.replies[branch]),
    ]
    return Request(
        branch,
        tuple(messages),
        cap=decided(settings.cap_in(branch)),
        steer=settings.steer if branch == STEERED else None,
        span=settings.span,
        thinking=settings.thinking,
        date=conversation.date,
        also=decided(settings.also) if branch == CAPPED else None,
    )


def _read_reply(engine: Engine, request: Request) -> list[ReadToken]:
    last = len(request.messages) - 1
    return [token for chunk in engine.read(request) for token in chunk if token.message == last]
