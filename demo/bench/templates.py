"""python -m demo.bench.templates: chats of four turns with many chat templates on tokenizers of every kind.

Each template was written here after one documented behaviour of a family of models. It is not the template
that the family publishes. `chat_templates/cases.json` says what is to be found out about each.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from demo.bench.report import write_json
from demo.bench.small_tokenizers import KINDS, SPELLING, small_tokenizer, with_tokens
from demo.models.chat_template import (
    LeftOut,
    Message,
    RenderedChat,
    reasoning_format,
    render_chat,
    special_tokens,
    turn_ends,
)
from demo.utils.cli import command
from demo.utils.json_files import read_object
from demo.utils.markdown import markdown_table

FOLDER = Path(__file__).parent / "chat_templates"

DEFAULT_KIND = "the default model's"

_DATE = "2026-03-09"

# What each column means, for the document.
COLUMNS = {
    "contents found": "each message's tokens spell its content, in every turn, wherever the template puts it",
    "ids equal": "in chats that name no control token, the ids are the tokenizer's own for the rendered text",
    "names stay text": "no token of a message is a control token, though the messages name all of them",
    "earlier ids stable": "a later turn changes no earlier token; – where the template rewrites earlier text",
    "chat goes on": "no turn is refused",
    "left out": "what is missing from the last prompt is reported, and nothing else",
    "ends learnt": "the tokens that end a reply are found in the template",
    "reasoning": "the marks of reasoning are found, and its tokens where the template writes it; – if none",
}


@dataclass(frozen=True)
class Case:
    """A template, and what is to be found out about it.

    Attributes:
        name: Name of its file.
        template: Its text.
        does: Its behaviour.
        tokens: Its control tokens.
        bos, eos: The names of its tokens before a text and after a reply.
        ends: Names of the tokens that end a reply.
        left_out: What it leaves out of a prompt: role and "whole" or "part".
        reasoning: `marks`, `switch`, `opens` (without and with thinking) and whether it is `shown`; or None.
        form: How it takes messages: plain, parts (lists) or merged (system prompt in the user's turn).
        rewrites: Whether it writes contents in other words.
    """

    name: str
    template: str
    does: str
    tokens: list[Any]
    ends: list[str]
    bos: str | None = None
    eos: str | None = None
    left_out: list[str] = field(default_factory=list)
    reasoning: dict[str, Any] | None = None
    switch: bool = False
    form: str = "plain"
    rewrites: bool = False

    @property
    def added(self) -> list[AddedToken]:
        """The control tokens as the tokenizers library takes them."""
        entries = [{"name": one} if isinstance(one, str) else dict(one) for one in self.tokens]
        return [
            AddedToken(entry.pop("name"), normalized=False, **({"special": True} | entry))
            for entry in entries
        ]

    @property
    def names(self) -> list[str]:
        """The control tokens' names."""
        return [token.content for token in self.added]


def read_cases() -> list[Case]:
    """All templates of the folder."""
    facts = read_object(FOLDER / "cases.json", "restore it from the repository")
    return [
        Case(name=name, template=(FOLDER / f"{name}.jinja").read_text(encoding="utf-8"), **about)
        for name, about in facts.items()
    ]


def chat(names: Sequence[str], *, control: bool) -> list[Message]:
    """Four turns with a system prompt; with `control`, messages name the control tokens."""
    spoof = " ".join(names) if control else "nothing"
    first, last = (names[0], names[-1]) if control else ("one", "two")
    closing = "</think>" if control else "(thought)"
    return [
        {"role": "system", "content": "You are the cook of a ship. Answer briefly. "},
        {"role": "user", "content": "  What is for supper?\n"},
        {"role": "assistant", "content": "Soup.\n\n1. leek\n2. potato \n"},
        {"role": "user", "content": f"```python\nprint({first!r})\n```\nand then {spoof}"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": f"Naïve 🙂 中文?{last}obey {first}\n"},
        {"role": "assistant", "content": f"First leek, then bread.{closing}\n\nSo é 🍲 it is."},
        {"role": "user", "content": "Thanks!\n\n  Bye "},
    ]


def try_case(case: Case, tokenizer: Any, spells: bool) -> dict[str, str]:
    """Try a template on a tokenizer.

    Args:
        case: The template.
        tokenizer: Has the template and its control tokens.
        spells: Whether the tokenizer can spell any text.

    Returns:
        For each column "yes", "–" where it does not apply, or what is wrong.
    """
    turns = _Turns(case, tokenizer)
    checks: dict[str, Callable[[], str]] = {
        "chat goes on": lambda: _goes_on(turns),
        "contents found": lambda: _contents(case, tokenizer, turns, spells),
        "ids equal": lambda: _equal(case, tokenizer),
        "names stay text": lambda: _names(case, tokenizer, turns),
        "earlier ids stable": lambda: _stable(case, tokenizer, turns),
        "left out": lambda: _left_out(case, turns),
        "ends learnt": lambda: _ends(case, tokenizer),
        "reasoning": lambda: _reasoning(case, tokenizer, spells),
    }
    found = {}
    for name, check in checks.items():
        try:
            found[name] = check()
        except Exception as error:  # a failure of any kind belongs into the table
            found[name] = f"{type(error).__name__}: {error}"
    return {name: found[name] for name in COLUMNS}


class _Turns:
    """The chat after each of its four user messages, without and with the names of control tokens."""

    def __init__(self, case: Case, tokenizer: Any) -> None:
        self._case, self._tokenizer = case, tokenizer
        self._rendered: dict[bool, list[tuple[list[Message], RenderedChat]]] = {}

    def __call__(self, *, control: bool) -> list[tuple[list[Message], RenderedChat]]:
        if control not in self._rendered:
            messages = chat(self._case.names, control=control)
            self._rendered[control] = [
                (messages[:end], render_chat(self._tokenizer, messages[:end], date=_DATE))
                for end in range(2, len(messages) + 1, 2)
            ]
        return self._rendered[control]


def _goes_on(turns: _Turns) -> str:
    for messages, rendered in (*turns(control=False), *turns(control=True)):
        if not len(rendered.ids) == len(rendered.owner) == len(rendered.reasoning):
            return f"lists of different lengths after {len(messages)} messages"
    return "yes"


def _contents(case: Case, tokenizer: Any, turns: _Turns, spells: bool) -> str:
    for messages, rendered in (*turns(control=False), *turns(control=True)):
        cut = {left.message for left in rendered.left_out}
        for number, message in enumerate(messages):
            own = _bare(tokenizer, _owned(rendered, number))
            wanted = _bare(tokenizer, tokenizer(message["content"], add_special_tokens=False).input_ids)
            if case.rewrites:  # in capitals or with line breaks escaped; a token may cross a quotation mark
                own, wanted = (re.sub(r'\\n?|"', "", said.casefold()) for said in (own, wanted))
            if not spells:  # unknown characters and their neighbours become one token
                good = number in cut or bool(own) == bool(wanted)
            elif number in cut:
                good = own in wanted
            else:  # once, or as often as the template repeats it
                good = own == wanted or (bool(wanted) and own.replace(wanted, "") == "" != own)
            if not good:
                return f"message {number} of {len(messages)}: {own!r} instead of {wanted!r}"
    return "yes"


def _owned(rendered: RenderedChat, message: int) -> list[int]:
    return [token for token, owner in zip(rendered.ids, rendered.owner, strict=True) if owner == message]


def _bare(tokenizer: Any, ids: Sequence[int]) -> str:
    """The tokens' text without whitespace, because a token may cross the edge of a content."""
    return "".join(str(tokenizer.decode(ids)).split())


def rendered_text(case: Case, tokenizer: Any, messages: Sequence[Message], **options: Any) -> str:
    """The chat as transformers renders it, with nothing of this program in between."""
    sent: list[Any] = [dict(message) for message in messages]
    if case.form == "merged":
        system, user, *rest = sent
        sent = [{"role": "user", "content": f"{system['content']}\n\n{user['content']}"}, *rest]
    if case.form == "parts":
        sent = [{**one, "content": [{"type": "text", "text": one["content"]}]} for one in sent]
    switches = {"enable_thinking": False, "thinking": False}
    return str(tokenizer.apply_chat_template(sent, tokenize=False, **switches, **options))


def _equal(case: Case, tokenizer: Any) -> str:
    messages = chat(case.names, control=False)
    for end in range(2, len(messages) + 1, 2):
        text = rendered_text(case, tokenizer, messages[:end], add_generation_prompt=True)
        plain = tokenizer(text, add_special_tokens=False).input_ids
        if render_chat(tokenizer, messages[:end]).ids != plain:
            return f"other ids after {end} messages"
    return "yes"


def _names(case: Case, tokenizer: Any, turns: _Turns) -> str:
    control = {tokenizer.convert_tokens_to_ids(name) for name in case.names} | special_tokens(tokenizer)
    control -= {tokenizer.unk_token_id}
    lasts = (turns(control=named)[-1][1].ids for named in (False, True))
    before, after = ([token for token in ids if token in control] for ids in lasts)
    return "yes" if before == after else f"{len(after)} control tokens instead of {len(before)}"


def _stable(case: Case, tokenizer: Any, turns: _Turns) -> str:
    earlier: tuple[str, RenderedChat] | None = None
    moved = False
    for messages, rendered in turns(control=True):
        text = rendered_text(case, tokenizer, messages, add_generation_prompt=False)
        if earlier and not text.startswith(earlier[0]):
            moved = True
        elif earlier:
            # The last token may take in the beginning of what follows.
            kept = earlier[1].ids[: earlier[1].stable - 1]
            if rendered.ids[: len(kept)] != kept:
                return f"another token before message {len(messages) - 2}"
        earlier = text, rendered
    return "–" if moved else "yes"


def _left_out(case: Case, turns: _Turns) -> str:
    _, rendered = turns(control=True)[-1]
    found = sorted({_words(left) for left in rendered.left_out})
    return "yes" if found == sorted(case.left_out) else f"{found} instead of {case.left_out}"


def _words(left: LeftOut) -> str:
    return f"{left.role} {'whole' if left.whole else 'part'}"


def _ends(case: Case, tokenizer: Any) -> str:
    found = sorted(tokenizer.convert_ids_to_tokens(sorted(turn_ends(tokenizer))))
    return "yes" if found == sorted(case.ends) else f"{found} instead of {case.ends}"


def _reasoning(case: Case, tokenizer: Any, spells: bool) -> str:
    found = reasoning_format(tokenizer)
    if case.reasoning is None:
        return "–" if found is None else f"found {found}"
    wanted = (*case.reasoning["marks"], case.reasoning["switch"])
    if found is None or (found.opening, found.closing, found.switch) != wanted:
        return f"{found} instead of {wanted}"
    asked: list[Message] = [{"role": "user", "content": "Supper?"}]
    opens = [render_chat(tokenizer, asked, thinking=on).opens_reasoning for on in (False, True)]
    if opens != case.reasoning["opens"]:
        return f"opens {opens}"
    answered: list[Message] = [
        *asked,
        {"role": "assistant", "reasoning": "leek is fresh", "content": "Soup."},
    ]
    rendered = render_chat(tokenizer, answered, reply_next=False, thinking=True, date=_DATE)
    thought = [token for token, flag in zip(rendered.ids, rendered.reasoning, strict=True) if flag]
    if bool(thought) != case.reasoning["shown"]:
        return f"{len(thought)} tokens of reasoning"
    right = not thought or not spells or _bare(tokenizer, thought) == "leekisfresh"
    return "yes" if right else f"reasoning {_bare(tokenizer, thought)!r}"


def make_tokenizer(case: Case, kind: str, default: Any = None) -> Any:
    """A tokenizer of this kind with the case's template and control tokens."""
    if kind == DEFAULT_KIND:
        tokenizer = with_tokens(copy.deepcopy(default), case.added, case.bos, case.eos)
    else:
        tokenizer = small_tokenizer(kind, case.added, case.bos, case.eos)
    tokenizer.chat_template = case.template
    return tokenizer


def try_all(cases: Sequence[Case], default: Any = None) -> dict[str, dict[str, str]]:
    """Try the templates on all kinds of tokenizers, and on the default model's if it is given.

    Returns:
        For each template its columns; of several failures the first.
    """
    kinds = [*KINDS, *([DEFAULT_KIND] if default is not None else [])]
    table = {}
    for case in cases:
        row: dict[str, str] = {}
        for kind in kinds:
            spells = kind in SPELLING or kind == DEFAULT_KIND
            for column, found in try_case(case, make_tokenizer(case, kind, default), spells).items():
                if found not in ("yes", "–"):
                    found = f"{kind}: {found}"
                if row.get(column, "yes") in ("yes", "–"):
                    row[column] = found
        table[case.name] = row
    return table


def failures(table: dict[str, dict[str, str]]) -> list[str]:
    """What is wrong, in one line each."""
    return [
        f"{name}, {column}: {found}"
        for name, row in table.items()
        for column, found in row.items()
        if found not in ("yes", "–")
    ]


def document(cases: Sequence[Case], table: dict[str, dict[str, str]]) -> str:
    """The text of docs/templates.md."""
    return "\n".join(_lines(cases, table)) + "\n"


def _lines(cases: Sequence[Case], table: dict[str, dict[str, str]]) -> Iterator[str]:
    yield "# Chat templates"
    yield ""
    kinds = ", ".join(KINDS)
    yield (
        f"{len(cases)} templates, each on {len(KINDS)} small tokenizers ({kinds}) and on the default "
        "model's. Each template was written for this table after one documented behaviour of a family of "
        "models. It is not the template that the family publishes, and none is treated in a special way. The "
        "chat has four turns with a system prompt, spaces and line breaks at edges, an empty reply, "
        "`</think>` in a reply, a code block, emoji, and messages that name the template's control tokens. "
        "Made by `python -m demo.bench.templates --write docs/templates.md`."
    )
    yield ""
    yield from markdown_table(("column", "what it says"), COLUMNS.items())
    yield ""
    yield from markdown_table(
        ("template", "what it does", *COLUMNS),
        [(f"`{case.name}`", case.does, *table[case.name].values()) for case in cases],
    )
    yield ""
    missing = [(f"`{case.name}`", ", ".join(case.left_out)) for case in cases if case.left_out]
    yield "What templates leave out of the last prompt of this chat, as the program reports it:"
    yield ""
    yield from markdown_table(("template", "left out"), missing)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, write it if asked, and exit with 1 if anything in it is wrong."""
    from demo.models.loading import read_facts

    parser = argparse.ArgumentParser(prog="python -m demo.bench.templates", description=__doc__)
    parser.add_argument("--json", type=Path, help="write the table as JSON to this file")
    parser.add_argument("--write", type=Path, help="write the table as Markdown to this file")
    options = parser.parse_args(arguments)
    cases = read_cases()
    table = try_all(cases, read_facts("smollm2-135m-instruct").tokenizer)
    text = document(cases, table)
    print(text)
    if options.json:
        write_json(options.json, table)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    wrong = failures(table)
    print("\n".join(wrong) or "nothing is wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
