"""What a request of OpenAI's chat completions API asks for, with the cap as further fields.

The fields are those of https://platform.openai.com/docs/api-reference/chat/create as far as the engine can do
what they say. Any other field is refused, because a harness would otherwise measure something else than it
was told to.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from demo.axis.axis import AssistantAxis
from demo.conversation.settings import CAPPED, MOST_SEEDS, SEED_STEP, UNCAPPED, make_cap, threshold_of
from demo.engine.protocol import MOST_ALTERNATIVES, Cap, Request, Sampling
from demo.models.chat_template import Message
from demo.utils.errors import UserError

# Of a model name: its replies are capped.
CAPPED_ENDING = ":capped"

_USUAL_TOKENS = 1024  # of a reply, where the request names no limit
_MOST_STOPS = 16

# Fields whose meaning the engine lacks, each with the values that ask for nothing.
_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
}
# Labels of a request, which change nothing about its reply.
_LABELS = ("user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier")


class RefusedError(UserError):
    """A request that is refused, or whose reply failed.

    Attributes:
        param: the field that is wrong; None for the request as a whole.
        status, code: of the response, as OpenAI's errors have them.
    """

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.param, self.status, self.code = param, status, code


def _plain_message(value: object) -> object:
    """A message whose content is one text, without what clients send along that says nothing."""
    if not isinstance(value, dict):
        return value
    said = {name: own for name, own in value.items() if own not in (None, [], "") or name == "role"}
    for name in ("name", "type", "refusal"):
        said.pop(name, None)
    said["content"] = _text(said.get("content", ""))
    return said


def _text(content: object) -> object:
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) else None for part in content]
    kinds = [part.get("type") if isinstance(part, dict) else None for part in content]
    if set(kinds) - {"text"} or not all(isinstance(text, str) for text in texts):
        raise ValueError("The model reads text only; send content as a string or as parts of type text.")
    return "".join(map(str, texts))


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ChatMessage(_Fields):
    """One message; `developer` is another name for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str
    reasoning_content: str = ""

    def as_message(self) -> Message:
        """The message as the engine takes it."""
        if self.role == "assistant" and self.reasoning_content:
            return Message(role="assistant", content=self.content, reasoning=self.reasoning_content)
        return Message(role="system" if self.role == "developer" else self.role, content=self.content)


class StreamOptions(_Fields):
    """include_usage: end the stream with the number of tokens."""

    include_usage: bool = False
    include_obfuscation: bool = False


class CompletionRequest(_Fields):
    """The body of a request.

    Attributes:
        cap, floor, layers: whether the reply is capped, at which floor, and from which to which decoder
            layer; those of the axis unless given.
        only_below: the cap acts only on a reply that begins below so many axis units; "off" for every
            reply; that of the axis unless given.
        repetition_penalty, thinking: as in `Sampling` and `Request`.
        projections: whether the response says where each token lies on the axis.
    """

    model: str
    messages: list[Annotated[ChatMessage, BeforeValidator(_plain_message)]] = Field(min_length=1)
    cap: bool | None = None
    floor: str | None = None
    layers: list[int] | None = Field(None, min_length=2, max_length=2)
    only_below: float | str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_as_list)] = Field(
        [], max_length=_MOST_STOPS
    )
    n: int = Field(1, ge=1, le=MOST_SEEDS)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_ALTERNATIVES)
    thinking: bool = False
    projections: bool = True


@dataclass(frozen=True)
class Asked:
    """A request that can be answered.

    Attributes:
        model: the name that the request gave.
        requests: one for each choice of the response.
        floor: the name of the cap's floor; empty without a cap.
        characters: of all messages together.
    """

    fields: CompletionRequest
    model: str
    requests: tuple[Request, ...]
    floor: str
    characters: int

    @property
    def cap(self) -> Cap | None:
        """The cap of every choice."""
        return self.requests[0].cap


def read_request(body: bytes, axis: AssistantAxis, model_name: str, always_thinks: bool, name: str) -> Asked:
    """What a request asks for.

    Args:
        body: JSON.
        model_name: the model that is served.
        always_thinks: whether the model reasons before every answer.
        name: of the response; its choices are told apart by it.

    Raises:
        UserError: it cannot be answered as it is.
    """
    fields = _fields(body)
    ending = CAPPED_ENDING if fields.model.endswith(CAPPED_ENDING) else ""
    if fields.model != model_name + ending:
        raise RefusedError(
            f"There is no model {fields.model!r} here; ask for {model_name!r} or "
            f"{model_name + CAPPED_ENDING!r}.",
            "model",
            404,
            "model_not_found",
        )
    cap, floor = _cap(fields, bool(ending), axis)
    seed = secrets.randbelow(2**31) if fields.seed is None else fields.seed
    messages = tuple(message.as_message() for message in fields.messages)
    if messages[-1]["role"] != "user":
        raise RefusedError("The last message must be the user's, because it is answered.", "messages")
    requests = tuple(
        Request(
            f"{name}/{UNCAPPED if cap is None else CAPPED}#{choice}",
            messages,
            _sampling(fields, seed + SEED_STEP * choice),
            cap,
            thinking=fields.thinking or always_thinks,
        )
        for choice in range(fields.n)
    )
    characters = sum(len(message["content"]) + len(message.get("reasoning", "")) for message in messages)
    return Asked(fields, fields.model, requests, floor, characters)


def _fields(body: bytes) -> CompletionRequest:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusedError(f"The request is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise RefusedError("The request must be a JSON object.")
    given = {name: value for name, value in found.items() if value is not None and name not in _LABELS}
    for name, neutral in _WITHOUT_EFFECT.items():
        if name in given and given.pop(name) not in neutral:
            raise RefusedError(f"This endpoint cannot do what {name} asks for; leave it out.", name)
    try:
        fields = CompletionRequest.model_validate(given)
    except ValidationError as error:
        raise _first_mistake(error) from error
    if fields.top_logprobs and not fields.logprobs:
        raise RefusedError("top_logprobs needs logprobs: true.", "top_logprobs")
    return fields


def _first_mistake(error: ValidationError) -> RefusedError:
    """The first mistake in one sentence."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return RefusedError(f"This endpoint has no field {where}; leave it out.", where)
    if first["type"] == "missing":
        return RefusedError(f"The field {where} is missing; every request needs it.", where)
    if first["type"] == "value_error":
        return RefusedError(str(first["ctx"]["error"]), where)
    return RefusedError(f"The field {where} is wrong: {first['msg'][0].lower()}{first['msg'][1:]}.", where)


def _cap(fields: CompletionRequest, by_name: bool, axis: AssistantAxis) -> tuple[Cap | None, str]:
    """The cap, and the name of its floor. by_name: whether the model's name asks for it."""
    if by_name and fields.cap is False:
        raise RefusedError(f"A model name ending with {CAPPED_ENDING} contradicts cap: false.", "cap")
    if not by_name and not fields.cap:
        if any(field is not None for field in (fields.floor, fields.layers, fields.only_below)):
            raise RefusedError("floor, layers and only_below need cap: true.", "cap")
        return None, ""
    first, last = axis.cap_band if fields.layers is None else fields.layers
    floor = axis.cap_floor if fields.floor is None else fields.floor
    return make_cap(axis, first, last, floor, threshold_of(fields.only_below, axis)), floor


def _sampling(fields: CompletionRequest, seed: int) -> Sampling:
    limits = [limit for limit in (fields.max_completion_tokens, fields.max_tokens) if limit is not None]
    return Sampling(
        fields.temperature,
        fields.top_p,
        limits[0] if limits else _USUAL_TOKENS,
        seed,
        fields.repetition_penalty,
    )
