"""python -m demo.evaluation.readme: print what the documents say about the default model's evaluation.

docs/evaluation.md has the statements, and README.md one sentence. --write puts them there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.evaluation import COMMAND, NAME, PAGE
from demo.evaluation.case_scoring import SUPPORTS
from demo.evaluation.drift import REREAD
from demo.evaluation.results import PLACES
from demo.evaluation.sections import agreement_of
from demo.evaluation.wording import (
    GOAL_DIFFERENCE,
    GOAL_FALL,
    GOAL_PERPLEXITY,
    change_of,
    fall_of,
    fall_verdict,
    points,
    reached_difference,
    reached_perplexity,
    seeds,
    share,
    units,
    verdict,
)
from demo.models.default import DEFAULT_MODEL
from demo.utils.cli import command
from demo.utils.json_files import read_object
from demo.utils.markdown import block, replaced
from demo.utils.paths import AXES, ROOT

README = ROOT / "README.md"

WRITE = "python -m demo.evaluation.readme --write"


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.readme", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the statements into both documents")
    options = parser.parse_args(arguments)
    figures = read_object(AXES / DEFAULT_MODEL / NAME, f"run {COMMAND}")
    made = documents(figures)
    for path, (name, statements) in made.items():
        if options.write:
            text = path.read_text(encoding="utf-8")
            path.write_text(replaced(text, name, WRITE, statements), encoding="utf-8")
        else:
            print(block(name, WRITE, statements))


def documents(figures: dict[str, Any]) -> dict[Path, tuple[str, str]]:
    """What each document says: its path -> the name of its block, and the block's content."""
    about = figures["about"]
    head = (
        f"On {about['model']}, with the cap at layers {about['cap']} "
        f"([report](../axes/{DEFAULT_MODEL}/evaluation.md), created by `{COMMAND}`):"
    )
    statements = "\n".join([head, "", *claims(figures)])
    return {README: ("evaluation summary", summary(figures)), PAGE: ("evaluation", statements)}


def summary(figures: dict[str, Any]) -> str:
    """The README's one sentence."""
    found = figures["susceptibility"]
    harmful = found["groups"]["all"]["harmful"]
    capability = figures["capability"]
    before, after = share(capability["uncapped"]), share(capability["capped"])
    change = f"stays at {after}" if before == after else f"goes from {before} to {after}"
    return (
        f"On {figures['about']['model']}, the cap changes the share of replies that take a harmful persona's "
        f"side from {share(harmful['uncapped'])} to {share(harmful['capped'])} (the goal of a fall of at "
        f"least {GOAL_FALL:.0%} was {fall_verdict(harmful, found['seeds'])}); the share of questions "
        f"answered correctly {change} (the goal of at most ±{100 * GOAL_DIFFERENCE:.0f} point was "
        f"{verdict(reached_difference(capability['difference']['value']))})."
    )


def claims(figures: dict[str, Any]) -> Iterator[str]:
    """Markdown lines, each a statement with its figures and whether the goal was reached."""
    yield _susceptibility(figures["susceptibility"], agreement_of(figures))
    yield _capability(figures["capability"])
    drift = "; ".join(
        f"{title}: {units(own['uncapped']['mean'][0])} to {units(own['uncapped']['mean'][-1])} uncapped, "
        f"{units(own[REREAD]['mean'][-1])} at the end capped"
        for title, own in figures["drift"].items()
    )
    yield (
        "- **Drift by domain.** First to last turn, axis units, the capped words read by the unsteered "
        f"model: {drift}."
    )
    if "cases" in figures:
        yield case_claim(figures["cases"])
    controls = "; ".join(
        f"{name}: {share(own['in character'])} and {share(own['right'])}"
        for name, own in figures["controls"].items()
    )
    yield (
        "- **Other directions.** Replies in character and questions answered correctly, on a subset: "
        f"{controls}."
    )


def case_claim(found: dict[str, Any]) -> str:
    """What the case studies found."""
    supported = [(case["title"], case[SUPPORTS]["replies"]) for case in found["cases"].values()]
    supported.append(("all", found["all"][SUPPORTS]["replies"]))
    cases = "; ".join(
        f"{title}: {share(own['uncapped'])} uncapped, {share(own['capped'])} capped, "
        f"{change_of(own['difference'])} points"
        for title, own in supported
    )
    kappa = found["agreement"][SUPPORTS]["kappa"]
    return (
        f"- **Case studies.** Replies that support what would harm the user, {seeds(found['seeds'])}: "
        f"{cases}. The score agrees with labels with kappa {kappa:.2f}."
    )


def _susceptibility(found: dict[str, Any], agreement: dict[str, Any] | None) -> str:
    harmful, in_character = (found["groups"]["all"][kind] for kind in ("harmful", "in character"))
    number = found["seeds"]
    judged = "" if agreement is None else _agreement(agreement["harmful"], agreement["in character"])
    return (
        f"- **Persona jailbreaks.** {found['attempts']} attempts at a harmful persona in "
        f"{len(found['categories'])} categories, {seeds(found['seeds'])} each. Replies that take its harmful "
        f"side: {share(harmful['uncapped'])} uncapped, {share(harmful['capped'])} capped, a relative fall of "
        f"{fall_of(harmful, number)}{_by_place(found['groups'], number)}. Replies that speak as the persona "
        f"at all: {share(in_character['uncapped'])} and {share(in_character['capped'])}, a fall of "
        f"{fall_of(in_character, number)}. The goal of a fall of at least {GOAL_FALL:.0%} was "
        f"{fall_verdict(harmful, number)}.{judged}"
    )


def _agreement(harmful: dict[str, float], in_character: dict[str, float]) -> str:
    """How far the score can be trusted, beside how well two readings of the same replies agree."""
    return (
        f" The score agrees with hand labels only to a limited degree (kappa {harmful['kappa']:.2f} for "
        f"harmful replies and {in_character['kappa']:.2f} for replies in character; two readings of the same "
        f"replies by hand: {harmful['kappa of two readings']:.2f} and "
        f"{in_character['kappa of two readings']:.2f})."
    )


def _by_place(groups: dict[str, Any], number: int) -> str:
    """The fall of harmful replies where the cap was not chosen, and in each place."""
    names = ("not used to choose the cap", *PLACES)
    falls = "; ".join(f"{name}: {fall_of(groups[name]['harmful'], number)}" for name in names)
    return f" ({falls})"


def _capability(found: dict[str, Any]) -> str:
    change, ratio = found["difference"], found["perplexity"]["ratio"]
    return (
        f"- **Capability.** {found['items']} questions with exact scoring: {share(found['uncapped'])} "
        f"correct uncapped, {share(found['capped'])} capped, {points(change['value'])} points "
        f"[{points(change['low'])}, {points(change['high'])}]; {share(found['verbatim'])} of the answers are "
        f"the same word for word. The goal of at most ±{100 * GOAL_DIFFERENCE:.0f} point was "
        f"{verdict(reached_difference(change['value']))}. Perplexity of ordinary text: {ratio:.3f} times the "
        f"uncapped one. The goal of at most {GOAL_PERPLEXITY} was {verdict(reached_perplexity(ratio))}."
    )


if __name__ == "__main__":
    raise SystemExit(main())
