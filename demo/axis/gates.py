"""Quality gates: thresholds that a trustworthy axis meets, and what they found in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.axis.zones import reply_evidence

# Capped replies may have at most this many times the perplexity of uncapped ones, under the unsteered model.
MOST_PERPLEXITY = 1.1

# Of the plain questions answered correctly without a cap, at least this share must stay correct with it.
LEAST_SAME = 0.95

# At least this share of the plain answers must stay the same word for word. A cap that rewrites ordinary
# answers changes the model too much, even if the answers stay correct.
LEAST_VERBATIM = 0.75

# First and last of the late turns of a scripted talk, which ends with them.
LATE_TURNS = (6, 8)

# In late turns a default reply must lie above a role-played one at least this often. It is less than `auc`
# asks for, because that compares only replies that adhere to their role, while here every reply counts, and
# models forget a role as a talk goes on. It is enough to read a chart by, whose reader looks at several
# turns: the means over three turns, if their noise is independent and normal, are in the right order in a
# share of Phi(sqrt(3) Phi^-1(0.8)) of the cases, more than nine tenths.
LEAST_LATE = 0.8

# A system prompt that the chat template writes by itself explains a large share of the separation if it alone
# moves replies by so many axis units, of the 1 between the average role and the default.
LARGE_SHIFT = 0.5

# Thresholds by gate. Fluency is an upper bound, the others are lower bounds.
GATES = {
    "split_half": 0.95,
    "cos_pc1": 0.6,
    "default_above_roles": 0.9,
    "role_order": 0.2,
    "auc": 0.95,
    "late_turns": LEAST_LATE,
    "fluency": MOST_PERPLEXITY,
    "sameness": LEAST_SAME,
}

# What each gate measured, in words that hold whether it passed or failed, with the figures of axis.json.
_MEASURES = {
    "split_half": "Made twice, from two halves of the replies, the two directions have a cosine of "
    "{value:.2f} (wanted: at least {threshold:.2f}).",
    "cos_pc1": "Its cosine with the main direction in which roles differ, the first principal component, is "
    "{value:.2f} (wanted: at least {threshold:.2f}).",
    "default_above_roles": "{subject} above {value:.0%} of the roles (wanted: at least {threshold:.0%}).",
    "role_order": "The rank correlation of its roles with the published order of Qwen3-32B is, with 95% "
    "confidence, at least {value:.2f} (wanted: at least {threshold:.2f}).",
    "auc": "Of a default reply and a role-played one, the default one lies higher {value:.0%} of the time "
    "(wanted: at least {threshold:.0%}; a coin would reach 50%).",
    "late_turns": f"In turns {LATE_TURNS[0]} to {LATE_TURNS[1]} of scripted talks, a default reply lies "
    "above a role-played one {value:.0%} of the time (wanted: at least {threshold:.0%}).",
    "fluency": "Capped replies have {value:.2f} times the perplexity of uncapped ones "
    "(wanted: at most {threshold:.2f}).",
    "sameness": "Of the plain questions answered correctly, {value:.0%} are still answered correctly under "
    "the cap (wanted: at least {threshold:.0%}).",
}

# What follows for the reader where a gate fails.
_CONSEQUENCES = {
    "split_half": "The direction depends on chance, so its numbers mean little.",
    "cos_pc1": "It may show something other than how Assistant-like a reply is.",
    "default_above_roles": "Many roles look as much like the default as the default itself.",
    "role_order": "It separates role-played replies from this model's own, but its order of the roles is not "
    "that of the Assistant Axis: what it measures is not how Assistant-like a reply is. So its ends are "
    "called own and role-played replies.",
    "auc": "One reply's place on the axis is weak evidence: compare means over several turns or seeds.",
    "late_turns": "Late in a chat it tells role-play less well from the model's own replies: trust the first "
    "turns most.",
    "fluency": "The cap costs fluency: do not take odd wording for a change of persona.",
    "sameness": "The cap changes answers that it should leave alone.",
}

# An axis that fails one of these is not worth looking at, and the page says so at once.
_BROKEN = ("split_half", "default_above_roles", "role_order")

_LIMITS = (
    "**What no axis can tell.** It is one direction of many. A low projection makes odd behaviour possible, "
    "not certain, and a single reply is a single sample."
)

UPPER_BOUNDS = ("fluency",)


@dataclass(frozen=True, slots=True)
class AxisWords:
    """What an axis and its ends are called.

    Attributes:
        axis: the axis itself.
        default: what lies at 1.
        up, down: its ends.
        subject: what lies at 1, as the beginning of a sentence about where it lies.
    """

    axis: str
    default: str
    up: str
    down: str
    subject: str


ASSISTANT_WORDS = AxisWords(
    "Assistant Axis", "default Assistant", "Assistant", "role", "The default Assistant lies"
)

# An axis whose order of roles is not that of the Assistant Axis is called by what was measured.
MEASURED_WORDS = AxisWords(
    "Axis from role-played to own replies", "own replies", "own", "role-played", "The model's own replies lie"
)


def is_assistant_axis(manifest: dict[str, Any]) -> bool:
    """Whether an axis may be shown under the Assistant's name: False where it fails `role_order`.

    An axis without that gate, such as a published one, keeps the name. The file is untrusted.
    """
    gates = manifest.get("gates")
    entry = gates.get("role_order") if isinstance(gates, dict) else None
    return not (isinstance(entry, dict) and entry.get("passed") is False)


def axis_words(manifest: dict[str, Any]) -> AxisWords:
    """What to call an axis and its ends."""
    return ASSISTANT_WORDS if is_assistant_axis(manifest) else MEASURED_WORDS


def injected_share(manifest: dict[str, Any]) -> str | None:
    """A sentence about the system prompt that a chat template writes by itself, if it moves replies far."""
    shift = manifest.get("template_shift")
    if isinstance(shift, bool) or not isinstance(shift, (int, float)) or not LARGE_SHIFT <= abs(shift) < 100:
        return None
    return (
        "Where a chat has no system prompt, the model's chat template writes one of its own. That alone "
        f"moves replies by {shift:+.2f} axis units, of the 1 between the average role and the default: "
        "compare only chats that have a system prompt."
    )


def passes(name: str, value: float) -> bool:
    """Whether `value` meets the threshold of gate `name`; NaN, from a comparison with nothing, does not."""
    return value <= GATES[name] if name in UPPER_BOUNDS else value >= GATES[name]


def gate(name: str, value: float) -> dict[str, Any]:
    """The gate's entry in axis.json. NaN cannot be written as JSON and becomes None."""
    shown = round(value, 4) if value == value else None
    return {"value": shown, "threshold": GATES[name], "passed": passes(name, value)}


def measured_gates(manifest: dict[str, Any]) -> dict[str, tuple[str, bool]]:
    """What each gate in axis.json measured, in words, and whether it passed.

    The file is untrusted, so only its numbers are shown; unknown or malformed entries are left out.
    """
    gates, found, subject = manifest.get("gates"), {}, axis_words(manifest).subject
    for name, words in _MEASURES.items():
        entry = gates.get(name) if isinstance(gates, dict) else None
        if not isinstance(entry, dict) or not isinstance(entry.get("passed"), bool):
            continue
        value, threshold = entry.get("value"), entry.get("threshold")
        if isinstance(value, (int, float)) and isinstance(threshold, (int, float)):
            found[name] = (words.format(value=value, threshold=threshold, subject=subject), entry["passed"])
    return found


def reliability(manifest: dict[str, Any]) -> str:
    """Markdown that answers how reliable an axis is, from the gates in its axis.json."""
    measured = measured_gates(manifest)
    if not measured:
        return f"This axis carries no quality checks, so nothing is known about it.\n\n{_LIMITS}"
    failed = [name for name, (_, passed) in measured.items() if not passed]
    passes_of = f"{len(measured) - len(failed)} of its" if failed else "all of its"
    short = " ".join(
        [f"**It passes {passes_of} {len(measured)} checks.**", *(_CONSEQUENCES[name] for name in failed)]
    )
    lines = [f"- {'Passed:' if passed else '**Failed:**'} {words}" for words, passed in measured.values()]
    injected = injected_share(manifest)
    template = [] if injected is None else [injected]
    return "\n\n".join([short, "\n".join(lines), *template, what_a_reply_tells(manifest), _LIMITS])


def what_a_reply_tells(manifest: dict[str, Any]) -> str:
    """How often a single reply is told right or wrong on held-out replies, and what more replies tell."""
    return reply_evidence(manifest, GATES["auc"], is_assistant_axis(manifest))


def broken_banner(manifest: dict[str, Any]) -> str | None:
    """The warning above everything else, for an axis whose direction cannot be trusted; otherwise None."""
    measured = measured_gates(manifest)
    failed = [name for name in _BROKEN if name in measured and not measured[name][1]]
    if not failed:
        return None
    title = "cannot be trusted" if is_assistant_axis(manifest) else "is not the Assistant Axis"
    return f"**This axis {title}.** " + " ".join(
        f"{measured[name][0]} {_CONSEQUENCES[name]}" for name in failed
    )
