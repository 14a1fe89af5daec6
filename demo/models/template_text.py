"""A chat as text: what the chat template writes, in the form of messages that it takes, on a fixed date."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date as Date
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from jinja2 import Environment, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from demo.utils.errors import UserError

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerBase

Value = TypeVar("Value")

# Names of roles and keys. Templates compare them with roles, not with what people write.
_NAMES = frozenset(("system", "user", "assistant", "tool", "developer", "role", "content", "text"))

# strftime's codes that do not need the time zone. `%-d` and its like exist on some systems only.
_CODES = tuple("%" + letter for letter in "aAbBcdeFgGHIjmMpSuUVwWxXyYDTR")
_SHORT = ("d", "m", "H", "I", "M", "S", "y", "j")
_PERCENT = "\uf8f0"  # stands for %% while the other codes are replaced

# transformers gives templates a clock, and replaces functions among the arguments by text. This macro hides
# the clock. The line break at its end is the one that the template engine removes after a tag.
_CLOCK = (
    "{% macro strftime_now(format='%d %b %Y') %}"
    f"{{% set said = namespace(text=format | replace('%%', '{_PERCENT}')) %}}"
    "{% for code, value in strftime_values.items() %}"
    "{% set said.text = said.text | replace(code, value) %}{% endfor %}"
    f"{{{{ said.text | replace('{_PERCENT}', '%') }}}}"
    "{% endmacro %}\n"
)


# Texts of chats that are rendered to learn about a template.
PROBES = ("\ue0a0", "\ue0a1", "\ue0a2")


class PerTokenizer(Generic[Value]):
    """A function of a tokenizer whose result is kept while its chat template and its tokens are the same."""

    def __init__(self, find: Callable[[PreTrainedTokenizerBase], Value]) -> None:
        self._find = find
        self._found: WeakKeyDictionary[Any, tuple[object, Value]] = WeakKeyDictionary()
        self._lock = Lock()
        self.__doc__ = find.__doc__

    def __call__(self, tokenizer: PreTrainedTokenizerBase) -> Value:
        state = (str(tokenizer.chat_template), len(tokenizer), str(tokenizer.special_tokens_map))
        with self._lock:
            known = self._found.get(tokenizer)
        if known and known[0] == state:
            return known[1]
        value = self._find(tokenizer)  # without the lock, because it may ask for other values
        with self._lock:
            self._found[tokenizer] = state, value
        return value


@dataclass(frozen=True, slots=True)
class TemplateSource:
    """A chat template before it is applied.

    Attributes:
        text: The template, as the tokenizer holds it.
        dated: Whether it writes the date of today.
        constants: Strings that its expressions hold, and may look for in messages; longest first.
        literals: All text that it may write.
    """

    text: str
    dated: bool
    constants: tuple[str, ...]
    literals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a rendering is for.

    Attributes:
        reply_next: Whether the header of the assistant's next reply follows.
        thinking: Whether the model is to reason first, where the template can say so.
        date: The date that the template writes, YYYY-MM-DD; None for today.
    """

    reply_next: bool = True
    thinking: bool = False
    date: str | None = None


class _Generation(Extension):
    """Reads transformers' tag around what the assistant says."""

    tags = {"generation"}  # noqa: RUF012 - as the base class declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _read_source(tokenizer: PreTrainedTokenizerBase) -> TemplateSource:
    try:
        text = str(tokenizer.get_chat_template())
    except ValueError as error:  # several templates, of which none is for plain chats
        raise UserError(
            f"The model's chat template cannot be chosen ({error}): give the tokenizer one template."
        ) from error
    try:
        tree = Environment(extensions=[_Generation, "jinja2.ext.loopcontrols"]).parse(text)
    except TemplateError:  # said in one sentence when the template is applied
        return TemplateSource(text, "strftime_now" in text, (), ())
    # Expressions that may look into a message: comparisons, and arguments of methods, filters and tests.
    looking = (*tree.find_all((nodes.Compare, nodes.Call, nodes.Filter, nodes.Test)), *_assignments(tree))
    sought = {text for node in looking for text in _strings(node) if text.strip()} - _NAMES
    written = [part.data for part in tree.find_all(nodes.TemplateData)]
    return TemplateSource(
        text=text,
        dated=any(name.name == "strftime_now" for name in tree.find_all(nodes.Name)),
        constants=tuple(sorted(sought, key=lambda one: (-len(one), one))),
        literals=(*_strings(tree), *written),
    )


def _strings(node: nodes.Node) -> list[str]:
    """The constant strings in an expression, but for keys of mappings."""
    keys = {id(item.arg) for item in node.find_all(nodes.Getitem)}
    inside = [node, *node.find_all(nodes.Const)]
    return [
        one.value
        for one in inside
        if isinstance(one, nodes.Const) and isinstance(one.value, str) and id(one) not in keys
    ]


def _assignments(tree: nodes.Template) -> list[nodes.Node]:
    """Constants with names of their own."""
    return [one.node for one in tree.find_all(nodes.Assign) if isinstance(one.node, nodes.Const)]


template_source = PerTokenizer(_read_source)


def template_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """12 hexadecimal digits of the chat template's text, by which two templates can be compared."""
    return hashlib.sha256(template_source(tokenizer).text.encode("utf-8", "replace")).hexdigest()[:12]


def render_text(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Mapping[str, Any]],
    wanted: Wanted,
    parts: bool | None = None,
) -> str:
    """Apply the chat template to `messages`, each with role, content and perhaps reasoning.

    Args:
        tokenizer: Holds the template.
        messages: The chat.
        wanted: What the rendering is for.
        parts: Whether each content is a list of parts; None to do what the template expects.

    Raises:
        Exception: The template fails or refuses the messages. Templates can raise errors of any kind.
    """
    source = template_source(tokenizer)
    in_parts = takes_parts(tokenizer) if parts is None else parts
    values: dict[str, Any] = {"enable_thinking": wanted.thinking, "thinking": wanted.thinking}
    if source.dated:
        values |= {"chat_template": _CLOCK + source.text, "strftime_values": _clock_values(wanted.date)}
    rendered = tokenizer.apply_chat_template(
        [_as_template_takes_it(message, in_parts) for message in messages],
        tokenize=False,
        add_generation_prompt=wanted.reply_next,
        **values,
    )
    return str(rendered)


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Number of items, or characters, with which both begin."""
    shortest = min(len(one), len(other))
    return next((at for at in range(shortest) if one[at] != other[at]), shortest)


def _as_template_takes_it(message: Mapping[str, Any], in_parts: bool) -> dict[str, Any]:
    content = message["content"]
    taken = {"role": message["role"], "content": [{"type": "text", "text": content}] if in_parts else content}
    if message.get("reasoning"):
        taken["reasoning_content"] = taken["thinking"] = message["reasoning"]
    return taken


def _clock_values(date: str | None) -> dict[str, str]:
    """What each code of strftime stands for on `date` at midnight; None for today."""
    day = Date.fromisoformat(date) if date else Date.today()
    values = {f"%-{code}": str(int(day.strftime(f"%{code}"))) for code in _SHORT}
    return values | {code: day.strftime(code) for code in _CODES}


def _finds_parts(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template drops or refuses contents that are strings, and writes them as lists of parts."""
    chats: list[list[dict[str, Any]]] = [
        [{"role": role, "content": text} for role, text in zip(roles, PROBES, strict=False)]
        for roles in (("user", "assistant", "user"), ("user",))
    ]
    for chat in chats:
        kept = {}
        for parts in (False, True):
            try:
                text = render_text(tokenizer, chat, Wanted(), parts)
            except Exception:  # a template can raise errors of any kind
                text = ""
            # A list that is written as Python writes lists was not understood.
            kept[parts] = 0 if "'type'" in text else sum(message["content"] in text for message in chat)
        if kept[False] or kept[True]:
            return kept[True] > kept[False]
    return False


takes_parts = PerTokenizer(_finds_parts)
