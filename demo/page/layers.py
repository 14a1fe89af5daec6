"""A reply at every decoder layer: as its branch reads it, and as the unsteered model does."""

from __future__ import annotations

from dataclasses import replace

from demo.axis.axis import AssistantAxis
from demo.conversation.conversation import Conversation, message_of
from demo.conversation.session_file import rounded
from demo.conversation.settings import CAPPED, STEERED, TurnSettings
from demo.engine.protocol import Engine, Message, ReadToken, Request
from demo.page.stage.protocol import Operation, operation
from demo.utils.errors import UserError


def layers_op(
    engine: Engine,
    axis: AssistantAxis,
    conversation: Conversation,
    index: int,
    branch: str,
    settings: TurnSettings,
) -> Operation:
    """Read the reply of one branch in turn `index`, and show it layer by layer.

    Args:
        settings: those of the turn.

    Raises:
        UserError: the branch has no reply in this turn, or the chat does not fit the context window.
    """
    turn = conversation.turns[index]
    if branch not in turn.replies or not any(token.text for token in turn.replies[branch].tokens):
        raise UserError("This branch has no reply in this turn.")
    own = _request(conversation, index, branch, settings)
    plain = _read_reply(engine, replace(own, cap=None, also=None, steer=None))
    mine = _read_reply(engine, own) if own.is_steered else plain
    # The turn's cap, for every branch: the page marks its layers in all of them.
    cap = settings.cap
    floors = zip(cap.layers, cap.floors, strict=True) if cap else ()
    return operation(
        "layers",
        turn=index,
        branch=branch,
        probe=axis.probe_layer,
        cap=[cap.layers[0], cap.layers[-1]] if cap else None,
        floors=[rounded(axis.to_units(floor, layer)) for layer, floor in floors],
        tokens=[token.text for token in mine],
        reasoning=sum(token.reasoning for token in mine),
        own=[[rounded(value) for value in token.after] for token in mine],
        plain=[[rounded(value) for value in token.after] for token in plain],
    )


def _request(conversation: Conversation, index: int, branch: str, settings: TurnSettings) -> Request:
    """The request that reads an earlier reply under the intervention of its branch."""
    turn = conversation.turns[index]
    messages = [
        *conversation.messages(branch, settings.prompt_in(branch), index),
        Message(role="user", content=turn.user),
        message_of(turn.replies[branch]),
    ]
    return Request(
        branch,
        tuple(messages),
        cap=settings.cap_in(branch),
        steer=settings.steer if branch == STEERED else None,
        span=settings.span,
        thinking=settings.thinking,
        date=conversation.date,
        also=settings.also if branch == CAPPED else None,
    )


def _read_reply(engine: Engine, request: Request) -> list[ReadToken]:
    last = len(request.messages) - 1
    return [token for chunk in engine.read(request) for token in chunk if token.message == last]
