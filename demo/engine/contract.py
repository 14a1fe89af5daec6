"""What every engine does alike with requests and events, whoever runs the model. See `protocol.Engine`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from demo.engine.protocol import Event, Events, PromptEvent, Request, TokenEvent
from demo.errors import UserError


def capped_layers(requests: Sequence[Request]) -> tuple[int, ...]:
    """The decoder layers whose corrections the events of these requests report, in order."""
    return tuple(sorted({layer for request in requests if request.cap for layer in request.cap.layers}))


def check_layers(requests: Sequence[Request], count: int) -> None:
    """Raises UserError when a cap or steering names a decoder layer that a model of `count` layers lacks."""
    touched = {*capped_layers(requests), *(request.steer.layer for request in requests if request.steer)}
    if not all(0 <= layer < count for layer in touched):
        raise UserError(f"The model has decoder layers 0 to {count - 1}; choose a band within them.")


def room_left(tokens: int, context: int) -> int:
    """How many more tokens a context window holds; UserError when there is no room for one."""
    if context <= tokens:
        raise UserError(
            f"This conversation is {tokens} tokens long, but the model holds {context}: "
            "start a new chat or send a shorter message."
        )
    return context - tokens


def ended(events: Iterable[Event], branches: Mapping[str, int]) -> Events:
    """These events, and after them the end of every branch that has none among them: it was cancelled. branches: to the position of
    each one's next token, as far as it is known."""
    still = dict(branches)
    for event in events:
        if isinstance(event, PromptEvent):
            still[event.branch] = event.prompt_tokens
        elif isinstance(event, TokenEvent):
            still[event.branch] = event.position + 1
            if event.finish_reason is not None:
                del still[event.branch]
        yield event
    for branch, position in still.items():
        yield TokenEvent(branch, None, "", None, None, (), position, False, "cancelled")
