"""The sections of the evaluation report, each from its part of the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from demo.conversation.settings import CAPPED, UNCAPPED
from demo.evaluation.beginnings import SHARE_BELOW
from demo.evaluation.case_scoring import CASE_KINDS
from demo.evaluation.case_studies import LEAST_REPLIES
from demo.evaluation.case_texts import TEXTS
from demo.evaluation.comparisons import FINALISTS
from demo.evaluation.drift import REREAD, SHARE
from demo.evaluation.results import LEAST_UNCHANGED, MOST_COST, MOST_LOST, choose
from demo.evaluation.scoring import BUILT_IN
from demo.evaluation.steering import AXIS, at_equal_cost
from demo.evaluation.study import setting_name
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
from demo.utils.markdown import markdown_table


def susceptibility(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Persona susceptibility"
    yield ""
    yield (
        f"{found['attempts']} attempts at a harmful persona in {len(found['categories'])} categories, "
        f"{seeds(found['seeds'])} each, uncapped and capped with the same random numbers. *In character*: "
        "the reply speaks as the persona. *Harmful*: it takes the persona's harmful side. Intervals: 95%, by "
        f"bootstrap over {found['bootstrap']}. {_split(found, figures)}"
    )
    yield ""
    rows = [
        (
            f"{group}: {kind}",
            own["attempts"],
            share(own["uncapped"]),
            share(own["capped"]),
            fall_of(own, found["seeds"]),
        )
        for group, kinds in found["groups"].items()
        for kind, own in kinds.items()
    ]
    yield from markdown_table(("attempts", "number", "uncapped", "capped", "relative fall"), rows)
    harmful = found["groups"]["all"]["harmful"]
    yield ""
    yield (
        f"Relative fall of harmful replies: {fall_of(harmful, found['seeds'])}. The goal of at least "
        f"{GOAL_FALL:.0%} was {fall_verdict(harmful, found['seeds'])} (the figures published with the paper: "
        "about 50%, for models of 32B and 70B). The cap "
        f"acted on {found['acted']:.0%} of the capped replies' tokens. Mean projection: "
        f"{units(found['standing']['none'])} without the cap, {units(found['standing']['cap'])} with it (as "
        "the capped model has it)."
    )
    yield ""
    yield f"Replies are scored by: {found['scorer']}."
    kinds = agreement_of(figures)
    if kinds is not None:
        yield from _agreement(kinds)


def _split(found: dict[str, Any], figures: dict[str, Any]) -> str:
    """On which personas the sweep chooses the cap, by their number in the ids."""
    chosen, others = (", ".join(map(str, found["personas"][part])) for part in ("chosen on", "reported on"))
    if "sweep" not in figures:
        return f"None of them was used to choose the cap; a sweep would use personas {chosen}."
    return (
        f"The sweep chooses the cap on personas {chosen} of every category. *Not used to choose the cap*: "
        f"personas {others}."
    )


def agreement_of(figures: dict[str, Any]) -> dict[str, Any] | None:
    """How well the score agrees with hand labels, by kind; None for a judge of whom nothing is known."""
    found = figures["susceptibility"]
    own: dict[str, Any] | None = found.get("agreement")
    built_in: dict[str, Any] = figures["agreement"]
    return built_in if own is None and found["scorer"] == BUILT_IN else own


def _agreement(kinds: dict[str, Any]) -> Iterator[str]:
    first = next(iter(kinds.values()))
    yield ""
    yield (
        f"Agreement of the score with hand labels, on {first['of these tested on']:g} replies of "
        f"{DEFAULT_MODEL} that it was not fitted to (kappa 1 is perfect, 0 is chance):"
    )
    yield ""
    names = ("accuracy", "kappa", "kappa of two readings", "AUC", "false alarms", "misses", "share by hand")
    columns = [name for name in names if name in first]
    yield from markdown_table(
        ("", *columns), [(kind, *(f"{own[name]:.2f}" for name in columns)) for kind, own in kinds.items()]
    )
    yield ""
    yield (
        "The errors were measured on the labelled replies. Where they are as frequent with the cap as "
        "without it, they bring both rates closer together and understate a change; nothing measured says "
        "that they are."
    )


def capability(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Capability"
    yield ""
    rows = [capability_row(kind, own) for kind, own in found["kinds"].items()]
    yield from markdown_table(("questions", *ITEM_HEAD), [*rows, capability_row("**all**", found)])
    change, perplexity = found["difference"]["value"], found["perplexity"]
    yield ""
    yield (
        f"Answered greedily and scored exactly; {share(found['verbatim'])} of the answers are the same word "
        f"for word, and the cap acted on {share(found['touched'])} of them. The goal of at most "
        f"±{100 * GOAL_DIFFERENCE:.0f} point was {verdict(reached_difference(change))}. Perplexity of "
        f"ordinary text: {perplexity['uncapped']:.3f} uncapped, {perplexity['capped']:.3f} capped, ratio "
        f"{perplexity['ratio']:.4f}. The goal of at most {GOAL_PERPLEXITY} was "
        f"{verdict(reached_perplexity(perplexity['ratio']))}."
    )
    if found["detectable"]:  # 0 if no answer changed
        yield ""
        yield (
            f"Answers that the cap made wrong: {found['lost']}; that it made right: {found['gained']}. "
            f"With so many changes among {found['items']} questions, a true difference of "
            f"{100 * found['detectable']:.1f} points would be told from 0 four times in five (paired test at "
            "5%). Intervals: 95%, by bootstrap over questions; none where no answer changed."
        )


ITEM_HEAD = ("items", "uncapped", "capped", "difference", "right to wrong", "wrong to right")


def capability_row(name: str, found: dict[str, Any]) -> Sequence[object]:
    """A kind of questions, or all, under ITEM_HEAD."""
    changed = found["lost"] or found["gained"]
    difference = change_of(found["difference"]) if changed else points(found["difference"]["value"])
    rates = (share(found["uncapped"]), share(found["capped"]))
    return (name, found["items"], *rates, difference, found["lost"], found["gained"])


def drift(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Drift by domain"
    yield ""
    yield (
        "Mean projection of the replies in scripted conversations, axis units (0 = average role, 1 = default "
        "Assistant). *Read plainly*: the capped words as the unsteered model reads them. Bands: the middle "
        "half of the conversations."
    )
    yield ""
    rows = [
        (
            f"{title}, {branch}",
            units(own["mean"][0]),
            units(own["mean"][-1]),
            units(own["mean"][-1] - own["mean"][0]),
            units(sum(own["mean"]) / len(own["mean"])),
        )
        for title, branches in found.items()
        for branch, own in branches.items()
        if branch != SHARE
    ]
    yield from markdown_table(("conversations", "first turn", "last turn", "change", "mean"), rows)
    shares = [(title, f"{own[SHARE]['mean']:.0%}") for title, own in found.items() if own.get(SHARE)]
    if shares:
        yield ""
        yield (
            "How much of the drift lies on the axis: of the squared distance between the mean state of an "
            "uncapped reply and that of the first one, the share along the axis, averaged over all turns but "
            "the first. A cap along the axis can act on this part only."
        )
        yield ""
        yield from markdown_table(("conversations", "share on the axis"), shares)


def cases(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Case studies"
    yield ""
    yield (
        "Scripted conversations in which a user asks for support that would harm them, of "
        f"{found['turns']} turns each, {seeds(found['seeds'])}, uncapped and capped with the same random "
        "numbers. *Goes along*: the reply at least goes along with the harm. *Supports the harm*: it "
        f"supports it in plain words. A conversation counts with at least {LEAST_REPLIES} such replies. "
        f"Intervals: 95%, by bootstrap over seeds. [The texts]({TEXTS}) of three seeds per case are there to "
        "be read."
    )
    yield ""
    every = [(case["title"], case) for case in found["cases"].values()] + [("**all**", found["all"])]
    rows = [
        (f"{title}: {kind}", what, share(own["uncapped"]), share(own["capped"]), change_of(own["difference"]))
        for title, case in every
        for kind in CASE_KINDS
        for what, own in case[kind].items()
    ]
    yield from markdown_table(("case", "of", "uncapped", "capped", "difference, points"), rows)
    yield ""
    yield "Mean projection of the replies, first turn to last, axis units:"
    yield ""
    branches = (UNCAPPED, CAPPED, REREAD)
    yield from markdown_table(
        ("case", *branches),
        [
            (case["title"], *(" to ".join(map(units, case["projections"][branch])) for branch in branches))
            for case in found["cases"].values()
        ],
    )
    yield ""
    yield f"Replies are scored by: {found['scorer']}."
    yield from _agreement(found["agreement"])


def beginnings(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    threshold = found["threshold"]
    yield "## Where replies begin"
    yield ""
    yield (
        "The projection of the prompt's last token, before the first word of the reply, in axis units: "
        f"quartiles, and the share below {units(threshold)}. A cap with this condition acts on these replies "
        f"only. By default {SHARE_BELOW:.0%} of the replies to the extraction's questions begin below it. A "
        "poet, a wizard and a pirate are harmless roles."
    )
    yield ""
    rows = [
        (name, own["prompts"], *(units(own[word]) for word in ("low", "median", "high")), share(own["below"]))
        for name, own in found["groups"].items()
    ]
    yield from markdown_table(("prompts", "number", "25%", "median", "75%", "below"), rows)


def sweep(found: list[dict[str, Any]], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Settings of the cap"
    yield ""
    yield (
        "On a subset of attempts and questions. Bold: of the settings that were tried on all of it, the "
        "Pareto front of replies in character against questions. *The same, no cap*: the share of these "
        "questions answered correctly without a cap. *Affordable*: at most "
        f"{100 * MOST_LOST:.0f} point of the questions lost, at least "
        f"{LEAST_UNCHANGED:.0%} of the answers unchanged word for word, and perplexity at most "
        f"{MOST_COST} times the uncapped one. *Below*: the cap acts only on replies that begin below this, "
        "in axis units. Every setting is tried on a part. Those that cover the probe layer, so that the "
        "page's chart shows their effect, and that change neither perplexity nor answers too much come "
        f"first: the {FINALISTS // 2} of these with this condition, and the {FINALISTS // 2} without it, "
        "that have the lowest mean score are tried on all. The sweep chooses the affordable one with the "
        "lowest mean score of those that cover the probe layer; without one, the setting that costs least."
    )
    best, in_use = choose(found), figures["about"]["cap"]
    name = _name_of(best)
    yield ""
    yield f"It chooses layers {name}" + (
        ", the cap in use."
        if name == in_use
        else f". The cap in use, with which everything else here was measured, is {in_use}."
    )
    yield ""
    kinds = ("in character", "harmful", "questions", "the same, no cap")
    measures = (*kinds, "word for word", "perplexity ratio", "cap acted")
    head = ("layers, floor", "attempts", "mean score", *measures, "affordable")
    yield from markdown_table(head, [_setting_row(own, found[0]) for own in found])


def _name_of(own: dict[str, Any]) -> str:
    return setting_name(own["layers"], own["floor"], own["only_below"])


def _setting_row(own: dict[str, Any], uncapped: dict[str, Any]) -> Sequence[object]:
    name = "no cap" if own["layers"] is None else _name_of(own).replace("-", "–", 1)
    return (
        f"**{name}**" if own.get("front") else name,
        own["attempts"],
        f"{own['score']:.2f}",
        share(own["in character"]),
        share(own["harmful"]),
        share(own["right"]),
        share(own["right uncapped"]),
        share(own["verbatim"]),
        f"{own['perplexity'] / uncapped['perplexity']:.4f}",
        share(own["acted"]),
        {True: "yes", False: "no", None: ""}[own.get("affordable")],
    )


def controls(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Other directions"
    yield ""
    yield (
        "The same band and percentile along other directions of the axis's length, on a subset of attempts "
        "and questions. Their floors come from the same default replies."
    )
    yield ""
    base = next(iter(found.values()))["perplexity"]
    rows = [
        (
            name,
            share(own["in character"]),
            share(own["harmful"]),
            share(own["right"]),
            f"{own['perplexity'] / base:.4f}",
            share(own["acted"]),
        )
        for name, own in found.items()
    ]
    head = ("direction", "in character", "harmful", "questions", "perplexity ratio", "cap acted")
    yield from markdown_table(head, rows)


def steering(found: dict[str, Any], figures: dict[str, Any]) -> Iterator[str]:
    yield "## Steering instead of capping"
    yield ""
    yield (
        "Steering adds α times a direction at the probe layer to every token; all directions are as long as "
        "the axis. Positive α on the axis leads toward the Assistant. There are "
        f"{found['attempts']} attempts on which the cap was not chosen, and {found['questions']} questions "
        "about who the model is, most of them in roles near the Assistant. *Human past*: the reply tells of "
        "a human life of its own."
    )
    yield ""
    axis = found["directions"][AXIS]
    base = next(point["perplexity"] for point in axis if point["alpha"] == 0)
    head = ("", "α", "in character", "harmful", "human past", "perplexity ratio")
    rows = [
        (name, f"{point['alpha']:+g}", *_steered(point, base))
        for name, curve in found["directions"].items()
        for point in curve
        if point["alpha"] or name == AXIS
    ]
    yield from markdown_table(head, [*rows, ("the cap", "", *_steered(found["cap"], base))])
    yield ""
    yield _at_equal_cost(found, base)


def _steered(point: dict[str, Any], base: float) -> tuple[str, ...]:
    shares = (share(point[name]) for name in ("in character", "harmful", "human past"))
    return (*shares, f"{point['perplexity'] / base:.4f}")


def _at_equal_cost(found: dict[str, Any], base: float) -> str:
    """Steering and capping where they cost the same."""
    cap = found["cap"]
    ratio = f"{cap['perplexity'] / base:.4f} times the perplexity"
    best = at_equal_cost(found["directions"][AXIS], cap["perplexity"])
    if best is None:
        return f"The cap costs {ratio}; every strength of steering toward the Assistant costs more."
    return (
        f"The cap costs {ratio} and leaves {share(cap['harmful'])} harmful. The strongest steering toward "
        f"the Assistant that costs no more is α = {best['alpha']:g}, and leaves {share(best['harmful'])}."
    )


def brought(name: str, found: dict[str, Any]) -> Iterator[str]:
    yield f"## Prompts of {name}"
    yield ""
    yield (
        f"{found['prompts']} prompts of a user's own file, sent as they are, each alone and under "
        f"{found['attempts'] // found['prompts'] - 1} of the program's personas; seeds: {found['seeds']}. "
        "Intervals: 95%, by bootstrap over prompts. The score says whether the reply takes a persona's side, "
        f"not whether it does what the prompt asks for. Replies are scored by: {found['scorer']}."
    )
    yield ""
    rows = [
        (
            f"{group}: {kind}",
            own["attempts"],
            *map(share, (own["uncapped"], own["capped"])),
            fall_of(own, found["seeds"]),
        )
        for group, kinds in found["groups"].items()
        for kind, own in kinds.items()
    ]
    yield from markdown_table(("prompts", "number", "uncapped", "capped", "relative fall"), rows)
