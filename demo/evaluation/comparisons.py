"""Compare settings of the cap, caps along other directions, and steering.

They are compared on a part of the attempts and questions. Every function measures one part of the report,
with the help of a `Study`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from demo.axis.axis import FLOOR_NAMES
from demo.conversation.settings import make_cap
from demo.engine.protocol import Cap, Sampling
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.answers import Change, Prompt
from demo.evaluation.attempts import Attempt
from demo.evaluation.capability import Item
from demo.evaluation.case_scoring import load_cases
from demo.evaluation.case_studies import case_studies, case_work
from demo.evaluation.directions import Chat, axis_along, first_component, random_direction
from demo.evaluation.drift import TOKENS as TALK_TOKENS
from demo.evaluation.steering import as_direction, identity_prompts, settings
from demo.evaluation.study import (
    CONTROL_PERSONAS,
    REPORTED_PERSONAS,
    SUBSET,
    SWEEP_PERSONAS,
    WITH_CAP,
    Study,
    tokens_of,
)
from demo.extraction.sweep import candidate_bands
from demo.models.chat_template import Message
from demo.utils.json_files import read_object
from demo.utils.paths import ASSETS

_DEFAULT_TOKENS = 48  # of a reply that gives a control direction its floors


def work(study: Study, parts: Sequence[str]) -> float:
    """The most tokens that the parts can generate. Generating takes most of the time."""
    subset = tokens_of([a.prompt(0) for a in study.subset(SWEEP_PERSONAS)])
    subset += tokens_of([item.as_prompt() for item in study.items[::SUBSET]])
    steered = tokens_of([a.prompt(0) for a in steered_attempts(study)]) + tokens_of(steered_prompts(study))
    size = study.size
    costs = {
        "sweep": (len(bands(study)) * len(FLOOR_NAMES) + 1) * subset,
        "susceptibility": 2 * size.seeds * tokens_of([a.prompt(0) for a in study.attempts]),
        "capability": 2 * tokens_of([item.as_prompt() for item in study.items]),
        "drift": 4 * size.talks * size.turns * 2 * TALK_TOKENS,
        "controls": (len(other_directions(study)) + 1) * subset,
        "cases": sum(case_work(size, case) for case in load_cases()),
        "steering": (len(settings(tuple(other_directions(study)))) + 1) * steered,
    }
    return sum(costs[part] for part in parts)


# --- the cap's band and floor


def sweep(study: Study) -> list[dict[str, Any]]:
    """No cap, then every band at every floor: a subset's attempts and items, and perplexity."""
    attempts, items = study.subset(SWEEP_PERSONAS), study.items[::SUBSET]
    tried: list[tuple[tuple[int, int] | None, str | None]] = [(None, None)]
    tried += [(band, floor) for band in bands(study) for floor in FLOOR_NAMES]
    found = []
    for band, floor in tried:
        cap = None if band is None or floor is None else make_cap(study.axis, *band, floor)
        key = f"sweep/{band}/{floor}"
        found.append(
            {"layers": band, "floor": floor}
            | _subset(study, key, study.engine, attempts, items, cap)
            | {"perplexity": study.perplexity(key, study.axis, WITH_CAP, cap)}
        )
    return found


def bands(study: Study) -> list[tuple[int, int]]:
    """The wide candidate bands, a quarter of the depth; as many as the size allows."""
    layers = study.axis.layers
    wide = [band for band in candidate_bands(layers) if band[1] - band[0] + 1 > layers / 6]
    return wide[:: study.size.bands]


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
    replies = _default_replies(study)
    directions = {"axis, floors made here": study.axis.direction, **other_directions(study)}
    attempts, items = study.subset(CONTROL_PERSONAS), study.items[::SUBSET]
    found = {}
    for name, direction in directions.items():
        other = axis_along(study.model, study.axis, direction, replies)
        cap = make_cap(other, *other.cap_band, other.cap_floor)
        engine = TransformersEngine(study.model, other, kv_budget=None, keep=False)
        key = f"controls/{study.cap_name}/{name}"
        found[name] = _subset(study, key, engine, attempts, items, cap) | {
            "perplexity": study.perplexity(key, other, WITH_CAP, cap)
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
    entries = read_object(ASSETS / "questions.json", "restore it from the repository")["questions"]
    asked = [entry if isinstance(entry, str) else entry["text"] for entry in entries]
    prompts = [
        Prompt((Message(role="user", content=text),), Sampling(max_new_tokens=_DEFAULT_TOKENS, seed=seed))
        for seed, text in enumerate(asked[: study.size.defaults], study.seed)
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

    def measured(key: str, change: Change, perplexity: float) -> dict[str, Any]:
        replies = study.answer_attempts(key, engine, attempts, {WITH_CAP: change}, 0)[WITH_CAP]
        identity = study.texts(f"{key}/identity", engine, prompts, change)
        return {"attempts": replies, "identity": identity, "perplexity": perplexity}

    found: dict[str, Any] = {}
    for setting in settings(tuple(vectors)):
        key, change = f"steering/{setting.name}", setting.steer(axis.probe_layer)
        along = replace(axis, direction=vectors.get(setting.direction, axis.direction))
        # Ordinary text is read along an axis with that direction, which needs no name there.
        unnamed = None if change is None else replace(change, direction="")
        found[setting.name] = measured(key, change, study.perplexity(key, along, WITH_CAP, unnamed))
    key = f"steering/{WITH_CAP} {study.cap_name}"
    found[WITH_CAP] = measured(key, study.cap, study.perplexity(key, axis, WITH_CAP, study.cap))
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
    "controls": controls,
    "steering": steering,
}
