"""Compare settings of the cap, caps along other directions, and steering.

They are compared on a part of the attempts and questions. Every function measures one part of the report,
with the help of a `Study`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor

from demo.engine.protocol import Cap, Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.answers import Change, Prompt
from demo.evaluation.attempts import Attempt
from demo.evaluation.beginnings import extraction_questions
from demo.evaluation.capability import Item
from demo.evaluation.case_scoring import load_cases
from demo.evaluation.case_studies import case_studies, case_work
from demo.evaluation.directions import Chat, axis_along, first_component, random_direction
from demo.evaluation.drift import TOKENS as TALK_TOKENS
from demo.evaluation.results import LEAST_UNCHANGED, MOST_COST
from demo.evaluation.steering import as_direction, identity_prompts, settings
from demo.evaluation.study import (
    CONTROL_PERSONAS,
    NO_CAP,
    REPORTED_PERSONAS,
    SUBSET,
    SWEEP_PERSONAS,
    WITH_CAP,
    CapSetting,
    Study,
    tokens_of,
)
from demo.models.chat_template import Message

_DEFAULT_TOKENS = 48  # of a reply that gives a control direction its floors

# The bands that the sweep tries: their width, where they begin, and their floors. Widths and beginnings are
# shares of the depth. A wide band acts at many layers, so its floors are low; where the cap leaves ordinary
# replies alone, they may be high.
_Bands = tuple[tuple[float, tuple[float, ...], tuple[str, ...]], ...]
_ON_ALL_REPLIES: _Bands = (
    (1 / 4, (0.4, 0.5, 0.6, 0.7), ("p25",)),
    (1 / 2, (0.2, 1 / 3, 0.47), ("p05", "p25")),
    (3 / 4, (0.13,), ("p05",)),
)
_CONDITIONAL: _Bands = ((1 / 4, (0.5, 0.6), ("p75",)), (1 / 2, (1 / 3, 0.47), ("p50", "p75")))

SCREENED = 3  # every setting is tried on every third attempt and item of the subset,
FINALISTS = 4  # and so many of them on all, half of them conditional.


def work(study: Study, parts: Sequence[str]) -> float:
    """The most tokens that the parts can generate. Generating takes most of the time."""
    subset = tokens_of([a.prompt(0) for a in study.subset(SWEEP_PERSONAS)])
    subset += tokens_of([item.as_prompt() for item in study.items[::SUBSET]])
    steered = tokens_of([a.prompt(0) for a in steered_attempts(study)]) + tokens_of(steered_prompts(study))
    size = study.size
    tried = len(candidates(study, 0.0))
    costs = {
        "sweep": (tried / SCREENED + FINALISTS * (1 - 1 / SCREENED) + 1) * subset,
        "susceptibility": 2 * size.seeds * tokens_of([a.prompt(0) for a in study.attempts]),
        "capability": 2 * tokens_of([item.as_prompt() for item in study.items]),
        "beginnings": 0,
        "drift": 4 * size.talks * size.turns * 2 * TALK_TOKENS,
        "controls": (len(other_directions(study)) + 1) * subset,
        "cases": sum(case_work(size, case) for case in load_cases()),
        "steering": (len(settings(tuple(other_directions(study)))) + 1) * steered,
    }
    return sum(costs[part] for part in parts)


# --- the cap's band and floor


def sweep(study: Study) -> list[dict[str, Any]]:
    """The replies of the subset without a cap, and then under every setting of it, with the perplexity.

    Successive halving: the settings that promise most on a part of the subset are tried on all of it.

    Returns:
        For every setting "layers", "floor" and "only_below", the replies to "attempts" and "items",
        "perplexity", and "every": 1 if they were all tried, SCREENED if every so many.
    """
    uncapped = _tried_on_all(study, None)
    settings = candidates(study, study.usual_threshold)
    found = {setting: _tried(study, setting, 0) for setting in settings}
    for conditional in (False, True):
        own = [setting for setting in settings if (setting.only_below is not None) == conditional]
        own.sort(key=lambda setting: promise(found[setting], uncapped, study.axis.probe_layer))
        found |= {setting: _tried_on_all(study, setting) for setting in own[: FINALISTS // 2]}
    return [uncapped, *found.values()]


def candidates(study: Study, threshold: float) -> list[CapSetting]:
    """The settings that the sweep tries.

    Args:
        threshold: of the conditional ones, see `CapSetting.only_below`.
    """
    found = [
        CapSetting(band, floor, only_below)
        for bands, only_below in ((_ON_ALL_REPLIES, None), (_CONDITIONAL, threshold))
        for width, starts, floors in bands
        for band in (_band(start, width, study.axis.layers) for start in starts)
        for floor in floors
        if floor in study.axis.floors
        and set(range(band[0], band[1] + 1)) <= set(study.axis.floor_layers(floor))
    ]
    return list(dict.fromkeys(found))[:: study.size.bands]


def _band(start: float, width: float, layers: int) -> tuple[int, int]:
    """First and last layer of a band; start and width are shares of the depth."""
    first = min(round(start * layers), layers - 1)
    return first, min(max(first, round((start + width) * layers) - 1), layers - 1)


def promise(trial: dict[str, Any], uncapped: dict[str, Any], probe_layer: int) -> tuple[bool, bool, float]:
    """What settings are sorted by, the best first.

    Those that cannot be chosen come last: they do not cover the probe layer, or change too much. Then the
    mean score counts. How many questions are answered correctly says little on a part of the subset.
    """
    first, last = trial["layers"]
    pairs = list(zip(trial["items"], uncapped["items"][:: trial["every"]], strict=True))
    unchanged = sum(own["text"] == other["text"] for own, other in pairs) / len(pairs)
    costs = trial["perplexity"] > MOST_COST * uncapped["perplexity"] or unchanged < LEAST_UNCHANGED
    scores = [reply["score"] for reply in trial["attempts"]]
    return not first <= probe_layer <= last, costs, sum(scores) / len(scores)


def _tried_on_all(study: Study, setting: CapSetting | None) -> dict[str, Any]:
    """A setting of the cap, or none, on the whole subset. What was already answered comes from the cache."""
    parts = [_tried(study, setting, first) for first in range(SCREENED)]
    return {
        **parts[0],
        "every": 1,
        **{what: interleaved([part[what] for part in parts]) for what in ("attempts", "items")},
    }


def interleaved(parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The whole, of which parts[i] is every so many from i on."""
    whole = [None] * sum(map(len, parts))
    for first, part in enumerate(parts):
        whole[first :: len(parts)] = part
    return whole


def _tried(study: Study, setting: CapSetting | None, first: int) -> dict[str, Any]:
    """A setting of the cap, or none, on every so many attempts and items of the subset, from `first` on."""
    cap = None if setting is None else setting.cap(study.axis)
    attempts = study.subset(SWEEP_PERSONAS)[first::SCREENED]
    items = study.items[::SUBSET][first::SCREENED]
    key = f"sweep/{NO_CAP if setting is None else setting.name}"
    about = {"layers": None, "floor": None, "only_below": None} if setting is None else asdict(setting)
    return {
        **about,
        "every": SCREENED,
        **_subset(study, f"{key}/{first}", study.engine, attempts, items, cap),
        "perplexity": study.perplexity(key, study.engine, WITH_CAP, cap),
    }


def _subset(
    study: Study,
    key: str,
    engine: TransformersEngine,
    attempts: Sequence[Attempt],
    items: Sequence[Item],
    cap: Cap | None,
) -> dict[str, Any]:
    """The replies to attempts and items under one cap."""
    caps = {WITH_CAP: cap}
    return {
        "attempts": study.answer_attempts(key, engine, attempts, caps, 0)[WITH_CAP],
        "items": study.answer_items(f"{key}/items", engine, items, caps)[WITH_CAP],
    }


# --- caps along other directions


def controls(study: Study) -> dict[str, dict[str, Any]]:
    """Name of a direction -> a subset's attempts and items, and perplexity, under its cap."""
    replies, axis = _default_replies(study), study.axis
    vectors = {"axis, floors made here": axis.direction, **other_directions(study)}
    others = {name: as_direction(name, vector, axis) for name, vector in vectors.items()}
    # Where a reply begins is measured on the axis; only the correction has another direction.
    engine = TransformersEngine(study.model, axis, kv_budget=None, keep=False, directions=others)
    attempts, items = study.subset(CONTROL_PERSONAS), study.items[::SUBSET]
    found = {}
    for name, vector in vectors.items():
        other = axis_along(study.model, axis, vector, replies)
        cap = replace(study.setting.cap(other), direction=name)
        key = f"controls/{study.cap_name}/{name}"
        found[name] = _subset(study, key, engine, attempts, items, cap) | {
            "perplexity": study.perplexity(key, engine, WITH_CAP, cap)
        }
    return found


def other_directions(study: Study) -> dict[str, Tensor]:
    """Name -> [L, D]: random directions and the roles' first component, of the axis's length."""
    found = {
        f"random {number + 1}": random_direction(study.axis, study.seed + number)
        for number in range(study.size.directions)
    }
    component = first_component(study.axis)
    return found if component is None else found | {"PC1 of the roles": component}


def _default_replies(study: Study) -> list[Chat]:
    """Chats with the default Assistant: uncapped replies to the extraction's questions."""
    prompts = [
        Prompt((Message(role="user", content=text),), Sampling(max_new_tokens=_DEFAULT_TOKENS, seed=seed))
        for seed, text in enumerate(extraction_questions()[: study.size.defaults], study.seed)
    ]
    replies = study.texts("controls/default replies", study.engine, prompts, None)
    return [
        (*prompt.messages, Message(role="assistant", content=text))
        for prompt, text in zip(prompts, replies, strict=True)
        if text.strip()
    ]


# --- steering


def steering(study: Study) -> dict[str, Any]:
    """Steering at every strength and along every direction, and the cap, on the same prompts.

    Returns:
        "directions" -> their names, besides the axis; "found" -> for each `Setting.name`, and WITH_CAP, the
        replies to "attempts" and to the "identity" prompts, and the "perplexity" of ordinary text.
    """
    vectors, axis = other_directions(study), study.axis
    others = {name: as_direction(name, vector, axis) for name, vector in vectors.items()}
    engine = TransformersEngine(study.model, axis, kv_budget=None, keep=False, directions=others)
    attempts, prompts = steered_attempts(study), steered_prompts(study)

    def measured(key: str, change: Change) -> dict[str, Any]:
        replies = study.answer_attempts(key, engine, attempts, {WITH_CAP: change}, 0)[WITH_CAP]
        identity = study.texts(f"{key}/identity", engine, prompts, change)
        perplexity = study.perplexity(key, engine, WITH_CAP, change)
        return {"attempts": replies, "identity": identity, "perplexity": perplexity}

    found: dict[str, Any] = {}
    for setting in settings(tuple(vectors)):
        found[setting.name] = measured(f"steering/{setting.name}", setting.steer(axis.probe_layer))
    found[WITH_CAP] = measured(f"steering/{WITH_CAP} {study.cap_name}", study.cap)
    return {"directions": list(vectors), "found": found}


def steered_attempts(study: Study) -> list[Attempt]:
    """Attempts with which strengths of steering are compared, none of which the cap was chosen on."""
    return study.subset(REPORTED_PERSONAS)[:: study.size.steered]


def steered_prompts(study: Study) -> list[Prompt]:
    """Questions to the model about itself."""
    return identity_prompts(study.axis, study.seed)[:: study.size.asked]


# Each resumes from the study's cache. The sweep comes first, because it may choose the cap of the others.
PARTS: dict[str, Callable[[Study], Any]] = {
    "sweep": sweep,
    "susceptibility": Study.susceptibility,
    "capability": Study.capability,
    "drift": Study.drift,
    "cases": case_studies,
    "beginnings": Study.beginnings,
    "controls": controls,
    "steering": steering,
}

# Parts without which another one says nothing: it is compared with their replies.
NEEDS = {"controls": ("susceptibility", "capability")}
