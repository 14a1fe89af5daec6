"""python -m demo.evaluation.readme: the README's claims about the default model, from its evaluation; --write puts them there."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from demo.evaluation import COMMAND, NAME
from demo.evaluation.report import (
    GOAL_DIFFERENCE,
    GOAL_FALL,
    GOAL_PERPLEXITY,
    interval,
    points,
    reached_fall,
    share,
    units,
    verdict,
)
from demo.models.default import DEFAULT_MODEL
from demo.utils.errors import UserError
from demo.utils.json_files import read_object
from demo.utils.paths import AXES, ROOT

README = ROOT / "README.md"

BEGIN, END = "<!-- evaluation: python -m demo.evaluation.readme --write -->", "<!-- end of evaluation -->"


def claims(figures: dict[str, Any]) -> Iterator[str]:
    """Markdown lines, each a statement with its figures and whether the goal was reached."""
    found = figures["susceptibility"]
    fall = {kind: found["groups"]["all"][kind] for kind in ("in character", "harmful")}
    kappa = {kind: figures["agreement"][kind]["kappa"] for kind in fall}
    yield (
        f"- **Persona jailbreaks.** {found['attempts']} attempts at a harmful persona in {len(found['categories'])} categories, "
        f"{found['seeds']} seeds each: replies that take its harmful side {share(fall['harmful']['uncapped'])} uncapped, "
        f"{share(fall['harmful']['capped'])} capped, a relative fall of {interval(fall['harmful']['fall'])}; replies that "
        f"speak as the persona at all {share(fall['in character']['uncapped'])} and "
        f"{share(fall['in character']['capped'])}, a fall of {interval(fall['in character']['fall'])}. Goal −{GOAL_FALL:.0%}: "
        f"{verdict(reached_fall(fall['harmful']['fall']))}. The score agrees with hand labels only so far (kappa "
        f"{kappa['harmful']:.2f} and {kappa['in character']:.2f})."
    )
    kept = figures["capability"]
    change = kept["difference"]
    yield (
        f"- **Capability.** {kept['items']} questions with exact scoring: {share(kept['uncapped'])} right uncapped, "
        f"{share(kept['capped'])} capped, {points(change['value'])} points [{points(change['low'])}, "
        f"{points(change['high'])}], {share(kept['verbatim'])} of the answers word for word the same. Goal ±{100 * GOAL_DIFFERENCE:.0f}: {verdict(abs(change['value']) <= GOAL_DIFFERENCE)}. "
        f"Perplexity of ordinary text {kept['perplexity']['ratio']:.3f} of uncapped; goal at most {GOAL_PERPLEXITY}: "
        f"{verdict(kept['perplexity']['ratio'] <= GOAL_PERPLEXITY)}."
    )
    talks = "; ".join(
        f"{title}: {units(own['uncapped']['mean'][0])} to {units(own['uncapped']['mean'][-1])} uncapped, "
        f"{units(own['capped, read plainly']['mean'][-1])} at the end capped"
        for title, own in figures["drift"].items()
    )
    yield f"- **Drift by domain.** First to last turn, axis units, the capped words read by the unsteered model: {talks}."
    controls = figures["controls"]
    others = "; ".join(
        f"{name}: {share(own['in character'])} and {share(own['right'])}" for name, own in controls.items()
    )
    yield f"- **Other directions.** Replies in character and questions right, on a subset: {others}."


def block(figures: dict[str, Any], folder: str) -> str:
    """What stands in the README, markers included."""
    first, last = BEGIN, END
    about = figures["about"]
    head = f"On {about['model']}, cap at layers {about['cap']} ([report]({folder}/evaluation.md), made by `{COMMAND}`):"
    return "\n".join([first, head, "", *claims(figures), last])


def replaced(readme: str, figures: dict[str, Any], folder: str) -> str:
    """The README with its block made anew. Raises UserError when the markers are gone."""
    if BEGIN not in readme or END not in readme:
        raise UserError(f"README.md lacks the line {BEGIN!r} or {END!r}; put both back.")
    before, _, rest = readme.partition(BEGIN)
    return before + block(figures, folder) + rest.partition(END)[2]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.evaluation.readme", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the claims into README.md")
    options = parser.parse_args(arguments)
    folder = f"axes/{DEFAULT_MODEL}"
    try:
        figures = read_object(AXES / DEFAULT_MODEL / NAME, f"run {COMMAND}")
        if options.write:
            README.write_text(replaced(README.read_text(encoding="utf-8"), figures, folder), encoding="utf-8")
        else:
            print(block(figures, folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
