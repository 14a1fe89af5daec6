"""Case studies: scripted conversations in which a user asks for support that would harm them.

After the case studies of arXiv 2601.10387: a user in distress who wants to be told to withdraw, a grandiose
delusion, and a romance. assets/evaluation/case_studies.json has the user's turns, which are fixed, and says
what counts as supporting the harm. Every case is played from many seeds, uncapped and with the axis's own
cap, with the page's sampling but for the length of a reply. `demo.evaluation.case_scoring` scores the
replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from demo.conversation.conversation import Conversation
from demo.conversation.scenarios import Scenario
from demo.conversation.settings import CAPPED, PAGE_SAMPLING, UNCAPPED
from demo.conversation.turns import Reply, rounded
from demo.engine.protocol import Cap
from demo.engine.transformers_engine import TransformersEngine
from demo.evaluation.case_scoring import CASE_KINDS, SUPPORTS, Case, CasePrompt, load_cases
from demo.evaluation.case_texts import talks_to_read
from demo.evaluation.drift import REREAD, reread
from demo.evaluation.scenarios import SEEDS_APART, Script, play_together
from demo.evaluation.scoring import Scorer
from demo.evaluation.study import NO_CAP, WITH_CAP, Size, Study
from demo.utils.statistics import difference

# Shorter than on the page: where a reply stands shows early, and the next turn follows all the same.
SAMPLING = replace(PAGE_SAMPLING, max_new_tokens=64, soft_limit=32)

# A conversation counts from so many replies on, because a single one may be scored wrongly.
LEAST_REPLIES = 2

BRANCH_NAMES = {NO_CAP: UNCAPPED, WITH_CAP: CAPPED}

Json = dict[str, Any]


# --- playing


def case_studies(study: Study) -> Json:
    """Play every case from all seeds, and score the replies.

    Returns:
        Id of the case -> NO_CAP or WITH_CAP -> per seed the replies to all turns: "text", "tokens", "acted",
            "standing" (mean projection after the clamp, axis units), "plain" (the same as the unsteered model
            reads the words), "score", and whether it is of each kind.
    """
    found: Json = {}
    for case in load_cases():
        turns, key = case.turns[: study.size.turns], f"cases/{study.cap_name}/{case.id}"

        def measure(case: Case = case, turns: tuple[str, ...] = turns) -> Json:
            return play_case(study.engine, study.cap, case, turns, study.size.cases, study.seed)

        played = study.cache.get(key, case_work(study.size, case), measure)
        found[case.id] = _scored(study, key, case, turns, played)
    return found


def case_work(size: Size, case: Case) -> int:
    """The most tokens that a case can generate in both branches."""
    return 2 * size.cases * len(case.turns[: size.turns]) * SAMPLING.max_new_tokens


def play_case(
    engine: TransformersEngine, cap: Cap, case: Case, turns: tuple[str, ...], seeds: int, first: int
) -> Json:
    """Play one case from several seeds, which are sequences of one batch.

    Args:
        first: the first seed.

    Returns:
        As one case of `case_studies`, without scores.
    """
    scenario = Scenario(case.id, case.title, "", "", turns)
    scripts = [Script(scenario, first + SEEDS_APART * number, 1) for number in range(seeds)]
    talks = play_together(engine, cap, scripts, SAMPLING, lambda turn: None)
    return {name: [_replies(engine, talk, branch) for talk in talks] for name, branch in BRANCH_NAMES.items()}


def _replies(engine: TransformersEngine, talk: Conversation, branch: str) -> list[Json]:
    replies = [turn.replies[branch] for turn in talk.turns]
    plain = reread(engine, talk) if branch == CAPPED else [reply.mean for reply in replies]
    return [_as_json(reply, read) for reply, read in zip(replies, plain, strict=True)]


def _as_json(reply: Reply, plain: float | None) -> Json:
    return {
        "text": reply.text,
        "tokens": len(reply.read),
        "acted": reply.fired,
        "standing": rounded(reply.mean),
        "plain": rounded(plain),
    }


def _scored(study: Study, key: str, case: Case, turns: Sequence[str], played: Json) -> Json:
    """The replies of one case with their scores, and with each kind that they count as."""
    scorer = study.case_scorer
    if scorer is None:
        return played
    replies = [reply for name in BRANCH_NAMES for talk in played[name] for reply in talk]
    prompts = [CasePrompt(case, turn) for turn in turns] * (len(replies) // len(turns))
    texts = [reply["text"] for reply in replies]
    scores = iter(study.cache.get(f"{key}/{scorer.key}", 0, lambda: scorer.scores(prompts, texts)))
    return {
        name: [[_with_score(reply, next(scores), scorer) for reply in talk] for talk in played[name]]
        for name in BRANCH_NAMES
    }


def _with_score(reply: Json, score: float, scorer: Scorer[CasePrompt]) -> Json:
    kinds = {kind: score >= threshold for kind, threshold in scorer.thresholds.items()}
    return {**reply, "score": round(score, 4), **kinds}


# --- figures


def case_figures(raw: Json, scorer: Scorer[CasePrompt], first: int) -> Json:
    """The figures of every case and of all together, and the conversations to read.

    Args:
        raw: what `case_studies` gives, with scores.
        first: the first seed.
    """
    cases, agreed = {case.id: case for case in load_cases()}, scorer.agreement or {}
    talks = {name: [talk for found in raw.values() for talk in found[name]] for name in BRANCH_NAMES}
    return {
        "scorer": scorer.name,
        "agreement": {
            kind: {name: round(value, 4) for name, value in own.items()} for kind, own in agreed.items()
        },
        "seeds": len(talks[NO_CAP]) // len(raw),
        "turns": len(talks[NO_CAP][0]),
        "cases": {
            case: {
                "title": cases[case].title,
                "harm": cases[case].harm,
                **_rates(found),
                "projections": {
                    **{BRANCH_NAMES[name]: _ends(found[name], "standing") for name in BRANCH_NAMES},
                    REREAD: _ends(found[WITH_CAP], "plain"),
                },
                "talks": talks_to_read(found, cases[case].turns, first, SEEDS_APART, SUPPORTS),
            }
            for case, found in raw.items()
        },
        "all": _rates(talks),
    }


def _rates(found: Json) -> Json:
    """Per kind the share of replies, and of conversations with at least LEAST_REPLIES replies of it."""
    pairs = list(zip(found[NO_CAP], found[WITH_CAP], strict=True))
    return {
        kind: {
            "replies": _paired([(_share(one, kind), _share(other, kind)) for one, other in pairs]),
            "conversations": _paired(
                [(float(_counts(one, kind)), float(_counts(other, kind))) for one, other in pairs]
            ),
        }
        for kind in CASE_KINDS
    }


def _share(talk: Sequence[Json], kind: str) -> float:
    return fmean(reply[kind] for reply in talk)


def _counts(talk: Sequence[Json], kind: str) -> bool:
    return sum(reply[kind] for reply in talk) >= LEAST_REPLIES


def _paired(pairs: list[tuple[float, float]]) -> Json:
    """Rates without and with the cap, and their difference; a seed is resampled with both its outcomes."""
    return {
        "uncapped": round(fmean(first for first, _ in pairs), 4),
        "capped": round(fmean(second for _, second in pairs), 4),
        "difference": difference(pairs).as_json(),
    }


def _ends(talks: Sequence[Sequence[Json]], name: str) -> list[float | None]:
    """Mean projection over the conversations in the first and in the last turn, axis units."""
    found = []
    for turn in (0, -1):
        known = [talk[turn][name] for talk in talks if talk[turn][name] is not None]
        found.append(round(fmean(known), 4) if known else None)
    return found
