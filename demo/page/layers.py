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

_ALWAYS, _NEVER = 1e6, -1e6  # axis units; every reply begins between them


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
    layers = reply.layers
    if layers is None:
        own = _request(conversation, index, branch, settings)
        # The turn's cap also for branches without one: the page marks its layers in all of them.
        layers = _read(engine, axis, own, own.cap or _decided(settings.cap, reply.start))
    if reply.finish is not None:
        reply.layers = layers
    fields = layers_json(layers)
    return operation("layers", turn=index, branch=branch, **{"plain": fields["own"], **fields})


def _read(engine: Engine, axis: AssistantAxis, own: Request, cap: Cap | None) -> Layers:
    """Read the reply with which a request ends, under its intervention and without it.

    Args:
        cap: the one to mark. It is not marked where it leaves the reply alone.
    """
    plain = _read_reply(engine, replace(own, cap=None, also=None, steer=None))
    mine = _read_reply(engine, own) if own.is_steered else plain
    if not mine:
        raise UserError("The chat template leaves this reply out, so there is nothing to read.")
    cap = None if cap is None or cap.only_below == _NEVER else cap
    # A cap along another direction has no floors in axis units.
    layers = cap.layers if cap else own.also.layers if own.also else ()
    rows = [token.after for token in plain]
    raw = dict(zip(cap.layers, cap.floors, strict=True)) if cap else {}
    band = (layers[0], layers[-1]) if layers else None
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
    """The request that reads an earlier reply under the intervention of its branch."""
    turn = conversation.turns[index]
    start = turn.replies[branch].start
    messages = [
        *conversation.messages(branch, settings.prompt_in(branch), index),
        Message(role="user", content=turn.user),
        message_of(turn.replies[branch]),
    ]
    return Request(
        branch,
        tuple(messages),
        cap=_decided(settings.cap_in(branch), start),
        steer=settings.steer if branch == STEERED else None,
        span=settings.span,
        thinking=settings.thinking,
        date=conversation.date,
        also=_decided(settings.also, start) if branch == CAPPED else None,
    )


def _decided(cap: Cap | None, start: float | None) -> Cap | None:
    """A conditional cap as it acts on a reply that began at `start`, axis units.

    That was decided when the reply was written. Templates may write another token before it once it is part
    of the chat.
    """
    if cap is None or cap.only_below is None or start is None:
        return cap
    return replace(cap, only_below=_ALWAYS if cap.acts_from(start) else _NEVER)


def _read_reply(engine: Engine, request: Request) -> list[ReadToken]:
    last = len(request.messages) - 1
    return [token for chunk in engine.read(request) for token in chunk if token.message == last]
