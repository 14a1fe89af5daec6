"""Measures the zones of an axis and how much one reply tells, from held-out replies.

The replies are read again by the unsteered model, at the probe layer alone. Every role's replies are measured
on an axis that was made without the role's fold (`demo.extraction.axis.fold_axes`), and the default ones on
all of these axes, of which each counts equally.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Event as CancelFlag
from typing import Any

import torch
from torch import Tensor

from demo.axis.zones import Told, Zones, zones_json
from demo.extraction.plan import CONTROLS, DEFAULT, FOLDS, Plan
from demo.extraction.reading import Reader
from demo.extraction.rollouts import Stopped
from demo.extraction.texts import Record, text_of
from demo.models.loading import LoadedModel
from demo.utils.statistics import auc

# A cut point may leave at most this share of the other kind's replies on its far side.
ERROR = 0.1

_TOGETHER = 64  # replies in one call of the reader
# Of the replies that the axis was made from, so many are read: per role, and of the default Assistant.
_PER_ROLE, _DEFAULTS = 4, 360
_HELD_OUT = 2000  # held-out replies of either kind
_AVERAGED = (2, 4)  # replies of one speaker
_LEAST_ROLES = 10  # an AUC over fewer roles says little

# Gives the states [n, D] of the replies of these records at the probe layer.
Read = Callable[[Sequence[Record]], Iterator[Tensor]]

# Called with how many of how many replies have been read.
Watched = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """A reply on the fold axes.

    Attributes:
        fold: the fold that its role is left out with; None for a default reply.
        speaker: the role, or the default Assistant's system prompt.
        units: [FOLDS, n], each token's projection on each fold axis, in axis units.
    """

    fold: int | None
    speaker: str
    units: Tensor

    def mean(self, fold: int, tokens: int | None = None) -> float:
        """The mean projection of the first tokens, or of all of them, as the page rounds it."""
        return round(float(self.units[fold, :tokens].mean()), 4)


# --- reading


def read_states(
    model: LoadedModel,
    records: Sequence[Record],
    layer: int,
    watch: Watched | None = None,
    cancel: CancelFlag | None = None,
) -> Iterator[Tensor]:
    """The residual stream of each reply's tokens at a layer, [n, D] float32.

    Raises:
        Stopped: it was cancelled.
    """
    reader = Reader(model)
    for start in range(0, len(records), _TOGETHER):
        if cancel is not None and cancel.is_set():
            raise Stopped
        part = records[start : start + _TOGETHER]
        yield from reader.states([text_of(model, record) for record in part], layer)
        if watch:
            watch(start + len(part), len(records))


# --- which replies


def usable(records: Sequence[Record], split: str, keep_all: bool) -> list[Record]:
    """The replies of a split with content that count: default ones, and those that adhere to their role."""
    return [
        record
        for record in records
        if record["split"] == split
        and record["group"] not in CONTROLS
        and record["tokens"]
        and record["reply"].strip()
        and (keep_all or record.get("kept", True))
    ]


def folds_of(records: Sequence[Record]) -> dict[str, int]:
    """Role -> its fold, as `Plan.fold` numbers them: in the order in which the roles were played."""
    roles = dict.fromkeys(
        record["group"] for record in records if record["group"] not in (DEFAULT, *CONTROLS)
    )
    return {role: place % FOLDS for place, role in enumerate(roles)}


def sample(records: Sequence[Record]) -> list[Record]:
    """Enough of the replies that the axis was made from, evenly spread."""
    taken: Counter[str] = Counter()
    roles = []
    for record in records:
        if record["group"] != DEFAULT and taken[record["group"]] < _PER_ROLE:
            taken[record["group"]] += 1
            roles.append(record)
    return [*_spread([r for r in records if r["group"] == DEFAULT], _DEFAULTS), *roles]


def _spread(records: Sequence[Record], most: int) -> list[Record]:
    count = min(most, len(records))
    return [records[index * len(records) // count] for index in range(count)]


def most_read(plan: Plan) -> int:
    """How many replies of an extraction are read at most."""
    parts = Counter((rollout.split, rollout.is_role) for rollout in plan.rollouts)
    return (
        sum(min(parts["held_out", is_role], _HELD_OUT) for is_role in (True, False))
        + min(parts["extract", True], _PER_ROLE * len(plan.roles))
        + min(parts["extract", False], _DEFAULTS)
    )


# --- the measurement


def measure_zones(
    read: Read, records: Sequence[Record], axes: Tensor, keep_all: bool = False
) -> dict[str, Any] | None:
    """What axis.json says under "zones", see docs/extraction.md; None without held-out replies of both kinds.

    Args:
        read: gives each reply's states at the probe layer, [n, D].
        records: the lines of rollouts.jsonl.
        axes: [FOLDS, D + 1], the fold axes at the probe layer, as `fold_axes` gives them.
        keep_all: whether every reply under a role's prompt counts as role-played.
    """
    folds = folds_of(records)
    held_out, made_from = usable(records, "held_out", keep_all), usable(records, "extract", keep_all)
    kinds = [[r for r in held_out if (r["group"] == DEFAULT) is default] for default in (True, False)]
    chosen = [*_spread(kinds[0], _HELD_OUT), *_spread(kinds[1], _HELD_OUT)] if all(kinds) else []
    if not chosen:
        return None
    chosen, n = [*chosen, *sample(made_from)], len(chosen)
    replies, means = [], []
    for record, states in zip(chosen, read(chosen), strict=True):
        replies.append(_measured(record, states, axes, folds))
        means.append(states.mean(0))
    return _figures(replies[:n], replies[n:], torch.stack(means[:n]), torch.stack(means[n:]))


def _measured(record: Record, states: Tensor, axes: Tensor, folds: dict[str, int]) -> Measured:
    units = axes[:, :-1] @ states.T + axes[:, -1:]
    fold = folds.get(record["group"])
    return Measured(fold, record["system"] if fold is None else record["group"], units)


def _figures(
    held_out: Sequence[Measured], made_from: Sequence[Measured], means: Tensor, trained_on: Tensor
) -> dict[str, Any]:
    """The content of "zones".

    Args:
        means, trained_on: the mean activations [n, D] of the replies of `held_out` and `made_from`.
    """
    longest = max(reply.units.shape[1] for reply in held_out)
    counts = [*(2**power for power in range(longest.bit_length()) if 2**power < longest), longest]
    own = _auc(held_out)
    ceiling = best_direction_auc(held_out, means, made_from, trained_on)
    return {
        **zones_json(zones_from(held_out)),
        "auc": round(own, 4),
        "auc_by_tokens": [[count, round(_auc(held_out, count), 4)] for count in counts],
        "auc_by_replies": _auc_by_replies(made_from),
        "ceiling": None if ceiling != ceiling else round(ceiling, 4),
    }


def zones_from(replies: Sequence[Measured]) -> Zones:
    """The cut points on held-out replies, and what they make of these replies."""
    default = [reply.mean(fold) for reply in replies if reply.fold is None for fold in range(FOLDS)]
    role = [reply.mean(reply.fold) for reply in replies if reply.fold is not None]
    low, high = cut_points(default, role)

    def told(values: Sequence[float], each: int) -> Told:
        below, above = sum(value < low for value in values), sum(value > high for value in values)
        return Told(len(values) // each, round(below / len(values), 4), round(above / len(values), 4))

    return Zones(low, high, told(default, FOLDS), told(role, 1))


def cut_points(default: Sequence[float], role: Sequence[float], error: float = ERROR) -> tuple[float, float]:
    """Below the first value a reply counts as role-played, above the second as the Assistant's.

    The first is the largest value below which at most the share `error` of the default replies lie, the
    second the smallest above which at most that share of the role-played ones lie. Where the two kinds lie so
    far apart that the first is the larger, both become the point halfway between them, which errs no more.

    Args:
        default, role: the replies' mean projections, at least one of each.
    """
    low = sorted(default)[min(len(default) - 1, int(error * len(default)))]
    high = sorted(role, reverse=True)[min(len(role) - 1, int(error * len(role)))]
    return (low, high) if low <= high else ((low + high) / 2,) * 2


def _auc(replies: Sequence[Measured], tokens: int | None = None) -> float:
    """P(a default reply lies above a role-played one), each pair on the axis without the role's fold.

    Args:
        tokens: only so many of a reply's first tokens count; None for all of them.
    """
    total, pairs = 0.0, 0
    for fold in range(FOLDS):
        default = [reply.mean(fold, tokens) for reply in replies if reply.fold is None]
        role = [reply.mean(fold, tokens) for reply in replies if reply.fold == fold]
        if default and role:
            total += auc(default, role) * len(role)
            pairs += len(role)
    return total / pairs if pairs else float("nan")


def _auc_by_replies(replies: Sequence[Measured]) -> list[list[float]]:
    """The AUC of means over several replies of one speaker: a role, or a system prompt of the default side.

    Held-out replies are too few per role, so these are replies to the questions of the axis; the roles are
    still those of the fold that was left out. A role with more replies is one that the model plays more
    often, so each row has single replies of the same roles to compare with.

    Returns:
        Rows of: how many replies are averaged, the AUC, the AUC of single replies of these roles, the number
        of roles.
    """
    by_speaker: dict[tuple[int | None, str], list[Measured]] = defaultdict(list)
    for reply in replies:
        by_speaker[reply.fold, reply.speaker].append(reply)
    rows: list[list[float]] = []
    for count in _AVERAGED:
        enough = {who: said for who, said in by_speaker.items() if len(said) >= count}
        roles = sum(fold is not None for fold, _ in enough)
        value = _auc(_averages(enough, count))
        if roles >= _LEAST_ROLES and value == value:
            rows.append([count, round(value, 4), round(_auc(_averages(enough, 1)), 4), roles])
    return rows


def _averages(by_speaker: dict[tuple[int | None, str], list[Measured]], count: int) -> list[Measured]:
    """Each group of `count` replies of one speaker as if it were one reply of as many tokens."""
    groups = []
    for (fold, speaker), said in by_speaker.items():
        # In random order, because neighbours answer the same question.
        said = random.Random(speaker).sample(said, len(said))
        for start in range(0, len(said) - count + 1, count):
            means = [reply.units.mean(1) for reply in said[start : start + count]]
            groups.append(Measured(fold, speaker, torch.stack(means, dim=1)))
    return groups


# --- the best direction


def best_direction_auc(
    held_out: Sequence[Measured], means: Tensor, made_from: Sequence[Measured], trained_on: Tensor
) -> float:
    """The AUC of the linear direction that tells default from role-played replies best.

    For each fold it is trained on replies to the axis's questions, without the fold's roles and without one
    of the default Assistant's system prompts, and tested on held-out replies to those. Otherwise it could
    learn what a prompt looks like. NaN where there are too few of either.

    Args:
        means, trained_on: mean activations [n, D] of the replies of `held_out` and `made_from`.
    """
    prompts = list(dict.fromkeys(reply.speaker for reply in made_from if reply.fold is None))
    trained, tested = _parts(made_from, prompts), _parts(held_out, prompts)
    total, pairs = 0.0, 0
    for fold in range(FOLDS):
        default = trained_on[(trained < 0) & (trained != -1 - fold)]
        role = trained_on[(trained >= 0) & (trained != fold)]
        above, below = means[tested == -1 - fold], means[tested == fold]
        if min(len(role), len(default)) > 1 and len(above) and len(below):
            best = discriminant(default, role)
            total += auc((above @ best).numpy(), (below @ best).numpy()) * len(below)
            pairs += len(below)
    return total / pairs if pairs else float("nan")


def _parts(replies: Sequence[Measured], prompts: Sequence[str]) -> Tensor:
    """[n], the fold of each reply: from 0 on for a role's, from -1 down for a default one, by its prompt."""
    places = {prompt: -1 - place % FOLDS for place, prompt in enumerate(prompts)}
    return torch.tensor([places.get(r.speaker, -1) if r.fold is None else r.fold for r in replies])


def discriminant(above: Tensor, below: Tensor) -> Tensor:
    """Fisher's linear discriminant, [D]: the pooled covariance's inverse times the difference of the means.

    The covariance is shrunk toward a multiple of the identity as Ledoit and Wolf (2004, "A well-conditioned
    estimator for large-dimensional covariance matrices") estimate it, so that it has an inverse.

    Args:
        above, below: [n, D] and [m, D], the two classes.
    """
    first, second = above.double(), below.double()
    centred = torch.cat([first - first.mean(0), second - second.mean(0)])
    n, size = centred.shape
    covariance = centred.T @ centred / n
    scale = covariance.diagonal().mean()
    identity = torch.eye(size, dtype=torch.float64)
    distance = ((covariance - scale * identity) ** 2).sum()
    noise = ((centred**2).sum(1) ** 2).sum() / n**2 - (covariance**2).sum() / n
    share = float((noise / distance).clamp(0, 1)) if distance > 0 else 1.0
    shrunk = (1 - share) * covariance + share * scale * identity
    if scale <= 0:
        return (first.mean(0) - second.mean(0)).float()
    return torch.linalg.solve(shrunk, first.mean(0) - second.mean(0)).float()
