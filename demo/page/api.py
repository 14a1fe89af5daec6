"""The page's functions as named endpoints for programs: `gradio_client`, agents and scripts.

Every call carries everything it needs, so nothing is kept between calls. A history is a list of turns as
`reply` returns them under "turn". Leave out the last turn to undo it, change a turn to edit it, keep two
lists to fork, and pass another seed to try again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import date as Date
from typing import TYPE_CHECKING, Any

import gradio as gr

from demo.axis.axis import AssistantAxis
from demo.axis.gates import is_assistant_axis
from demo.axis.zones import zone_of, zones_json
from demo.conversation.conversation import Conversation
from demo.conversation.session_file import reply_json, rounded
from demo.conversation.settings import BRANCHES, TurnSettings, make_cap, threshold_of
from demo.conversation.turns import Reply, Turn, well_formed
from demo.engine.protocol import Cap, Engine, ReadToken, Request, Sampling
from demo.models.chat_template import Message
from demo.page.chat_handlers import plain_reason
from demo.page.rate_limit import RateLimiter, address_of
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.models.loading import Thinking

_FAILED = "That failed ({}); try again."


@dataclass(frozen=True)
class Api:
    """The endpoints. Their docstrings are shown to the programs that call them.

    Attributes:
        thinking: whether the model reasons before it answers.
    """

    engine: Engine
    axis: AssistantAxis
    model_name: str
    rate_limiter: RateLimiter = field(default_factory=RateLimiter)
    thinking: Thinking = "never"

    def info(self) -> dict[str, Any]:
        """Model, probe layer, cap, floors, zones, each role's projection in axis units, the engine's load.

        zones: the cut points between role-played, unclear and Assistant, null where they were not measured.
        """
        (first, last), zones = self.axis.cap_band, self.axis.zones
        roles = [role for role in self.axis.manifest.get("roles", []) if isinstance(role, dict)]
        return {
            "model": self.model_name,
            "layers": self.axis.layers,
            "probe_layer": self.axis.probe_layer,
            "cap": {
                "layers": [first, last],
                "floor": self.axis.cap_floor,
                "only_below": self.axis.cap_only_below,
            },
            "floors": list(self.axis.floors),
            "default_range": self.axis.default_range,
            "zones": None if zones is None else zones_json(zones),
            "thinking": self.thinking,
            "load": asdict(self.engine.load),
            "roles": [{"name": role.get("name"), "projection": role.get("projection")} for role in roles],
        }

    def reply(
        self,
        message: str,
        history: list[dict[str, str]] | None = None,
        system_prompt: str = "",
        cap: bool = True,
        seed: int = 0,
        max_new_tokens: int = 96,
        temperature: float = 0.3,
        floor: str = "",
        first_layer: int = -1,
        last_layer: int = -1,
        thinking: bool = False,
        soft_limit: int = 0,
        only_below: float | str = "",
        request: gr.Request | None = None,
    ) -> dict[str, Any]:
        """Answer a message uncapped and capped.

        history: earlier turns, as returned under "turn". floor, first_layer, last_layer: those of the axis
        unless given. thinking: let a model that can reason do so before it answers. soft_limit: from so many
        tokens on, a reply ends with its sentence; 0 for never. only_below: cap only a reply that begins below
        so many axis units; "off" for every reply; that of the axis unless given. Returns both replies with
        every token's projection in axis units and the zone of its mean, and the turn to append to the
        history.
        """
        with _errors_in_one_sentence():
            message, system_prompt = well_formed(message), well_formed(system_prompt)
            conversation = conversation_from(history or [])
            sampling = Sampling(temperature, max_new_tokens=max_new_tokens, seed=seed, soft_limit=soft_limit)
            settings = TurnSettings(
                sampling,
                self._cap(cap, floor, first_layer, last_layer, only_below),
                system_prompt,
                thinking=self._thinking(thinking),
            )
            with self._admit(request, message, system_prompt, *_texts(conversation)):
                try:
                    for _ in conversation.send(self.engine, message, settings):
                        pass
                finally:
                    self.engine.forget([conversation.branch_id(branch) for branch in BRANCHES])
            replies = conversation.turns[-1].replies
            said = {branch: replies[branch].text for branch in BRANCHES}
            full = {
                branch: reply_json(replies[branch])
                | _texts_of(replies[branch])
                | {
                    "zone": zone_of(
                        self.axis.zones, replies[branch].mean, is_assistant_axis(self.axis.manifest)
                    )
                }
                for branch in BRANCHES
            }
            return full | {"turn": {"user": message, "date": conversation.date} | said}

    def read(
        self,
        messages: list[dict[str, str]],
        cap: bool = False,
        layers: bool = False,
        request: gr.Request | None = None,
    ) -> dict[str, Any]:
        """The projection of each token of a finished chat, in axis units. Nothing is generated.

        messages: {"role", "content"} each. cap: read the chat under the cap. layers: return the projections
        at every decoder layer instead of the probe layer alone.
        """
        with _errors_in_one_sentence():
            roles = {"system", "user", "assistant"}
            if not messages or not all(
                m.get("role") in roles and isinstance(m.get("content"), str) for m in messages
            ):
                raise UserError(
                    'Give messages as a list of {"role": system, user or assistant, "content": text}.'
                )
            chat = tuple(
                Message(role=m["role"], content=well_formed(m["content"]))  # type: ignore[typeddict-item]
                for m in messages
            )
            asked = Request("read", chat, cap=self._cap(cap))
            with self._admit(request, *(m["content"] for m in messages)):
                tokens = [self._token(token, layers) for chunk in self.engine.read(asked) for token in chunk]
            return {"probe_layer": self.axis.probe_layer, "tokens": tokens}

    def _token(self, token: ReadToken, layers: bool) -> dict[str, Any]:
        after = [rounded(v) for v in token.after] if layers else rounded(token.after[self.axis.probe_layer])
        return {"message": token.message, "text": token.text, "projection": after}

    def _admit(self, request: gr.Request | None, *texts: str) -> AbstractContextManager[None]:
        return self.rate_limiter.turn(address_of(request), sum(map(len, texts)), self.engine.load)

    def _thinking(self, asked: bool) -> bool:
        if asked and self.thinking == "never":
            raise UserError("This model does not reason before it answers; leave `thinking` out.")
        return asked or self.thinking == "always"

    def _cap(
        self, on: bool, floor: str = "", first: int = -1, last: int = -1, below: float | str = ""
    ) -> Cap | None:
        if not on:
            return None
        band = self.axis.cap_band
        return make_cap(
            self.axis,
            first if first >= 0 else band[0],
            last if last >= 0 else band[1],
            floor or self.axis.cap_floor,
            threshold_of(below, self.axis),
        )


class _errors_in_one_sentence:
    """Within the block, any error reaches the client as one sentence."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise gr.Error(plain_reason(error, _FAILED), print_exception=False) from error


def conversation_from(history: Sequence[dict[str, str]]) -> Conversation:
    """The conversation that a client sent. Raises UserError when it is malformed."""
    try:
        turns = [(turn["user"], {branch: turn[branch] for branch in BRANCHES}) for turn in history]
        began = history[0].get("date", "") if history else ""
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError('Give the history as a list of {"user", "uncapped", "capped"}.') from error
    if not all(isinstance(text, str) for user, replies in turns for text in (user, *replies.values())):
        raise UserError("The history holds a value that is not text; give strings.")
    conversation = Conversation(
        [
            Turn(well_formed(user), {b: Reply.of_text(well_formed(text)) for b, text in replies.items()})
            for user, replies in turns
        ]
    )
    if began:
        conversation.date = _checked_date(began)
    return conversation


def _checked_date(text: object) -> str:
    """The day on which the history began, which dated chat templates write. Raises UserError."""
    try:
        return Date.fromisoformat(str(text)).isoformat()
    except ValueError as error:
        raise UserError("The date of the history must be given as YYYY-MM-DD, or left out.") from error


def _texts_of(reply: Reply) -> dict[str, str]:
    return {"text": reply.text} | ({"reasoning": reply.reasoning} if reply.reasoning else {})


def _texts(conversation: Conversation) -> Iterator[str]:
    for turn in conversation.turns:
        yield turn.user
        yield from (reply.text for reply in turn.replies.values())


def add_api(api: Api, concurrency_id: str) -> None:
    """Declare the endpoints in the current Gradio context.

    Args:
        concurrency_id: the queue that the endpoints which run the model share with the page.
    """
    gr.api(api.info, api_name="info", queue=False)
    for endpoint in (api.reply, api.read):
        gr.api(endpoint, api_name=endpoint.__name__, concurrency_id=concurrency_id, concurrency_limit=None)
