"""python -m demo.evaluation.readme: print the README's statements about the default model.

They are made from the model's evaluation. --write puts them into README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from demo.evaluation import COMMAND, NAME
from demo.evaluation.drift import REREAD
from demo.evaluation.report import (
    GOAL_DIFFERENCE,
    GOAL_FALL,
    GOAL_PERPLEXITY,
    interval,
    points,
    reached_difference,
    reached_fall,
    reached_perplexity,
    share,
    units,
    verdict,
)
from demo.models.default import DEFAULT_MODEL
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import AXES, ROOT

README = ROOT / "README.md"

BEGIN, END = "<!-- evaluation: python -m demo.evaluation.readme --write -->", "<!-- end of evaluation -->"


@command
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.readme", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the statements into README.md")
    options = parser.parse_args(arguments)
    folder = f"axes/{DEFAULT_MODEL}"
    figures = read_object(AXES / DEFAULT_MODEL / NAME, f"run {COMMAND}")
    if options.write:
        README.write_text(replaced(README.read_text(encoding="utf-8"), figures, folder), encoding="utf-8")
    else:
        print(block(figures, folder))


def replaced(readme: str, figures: dict[str, Any], folder: str) -> str:
    """The README with a new block of statements. Raises UserError without the markers."""
    if BEGIN not in readme or END not in readme:
        raise UserError(f"README.md lacks the line {BEGIN!r} or {END!r}; put both back.")
    before, _, rest = readme.partition(BEGIN)
    return before + block(figures, folder) + rest.partition(END)[2]


def block(figures: dict[str, Any], folder: str) -> str:
    """The README's statements with the markers around them.

    Args:
        folder: The axis's folder, for the link to the report.
    """
    about = figures["about"]
    head = (
        f"On {about['model']}, with the cap at layers {about['cap']} ([report]({folder}/evaluation.md), "
        f"created by `{COMMAND}`):"
    )
    return "\n".join([BEGIN, head, "", *claims(figures), END])


def claims(figures: dict[str, Any]) -> Iterator[str]:
    """Markdown lines, each a statement with its figures and whether the goal was reached."""
    yield _susceptibility(figures["susceptibility"], figures["agreement"])
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
    controls = "; ".join(
        f"{name}: {share(own['in character'])} and {share(own['right'])}"
        for name, own in figures["controls"].items()
    )
    yield (
        "- **Other directions.** Replies in character and questions answered correctly, on a subset: "
        f"{controls}."
    )


def _susceptibility(found: dict[str, Any], agreement: dict[str, Any]) -> str:
    harmful, in_character = (found["groups"]["all"][kind] for kind in ("harmful", "in character"))
    return (
        f"- **Persona jailbreaks.** {found['attempts']} attempts at a harmful persona in "
        f"{len(found['categories'])} categories, {found['seeds']} seeds each. Replies that take its harmful "
        f"side: {share(harmful['uncapped'])} uncapped, {share(harmful['capped'])} capped, a relative fall of "
        f"{interval(harmful['fall'])}. Replies that speak as the persona at all: "
        f"{share(in_character['uncapped'])} and {share(in_character['capped'])}, a fall of "
        f"{interval(in_character['fall'])}. The goal of a fall of at least {GOAL_FALL:.0%} was "
        f"{verdict(reached_fall(harmful['fall']))}. The score agrees with hand labels only to a limited "
        f"degree (kappa {agreement['harmful']['kappa']:.2f} for harmful replies and "
        f"{agreement['in character']['kappa']:.2f} for replies in character)."
    )


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
