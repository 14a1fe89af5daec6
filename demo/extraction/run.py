"""Run an extraction: gather rollouts batch by batch, resuming where an earlier run stopped, then build the axis."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from demo.axis.files import save_axis
from demo.engine.protocol import Sampling
from demo.extraction.axis import Built, build, choose_cast, fold_axes, with_cap
from demo.extraction.controls import controls
from demo.extraction.judge import Judge
from demo.extraction.plan import DEFAULT, Plan, Rollout
from demo.extraction.report import write_report
from demo.extraction.rollouts import Reply, RolloutGenerator
from demo.extraction.sweep import Sweep, candidate_bands, choose
from demo.extraction.vectors import ALL, KEPT, Judged, State, Vectors
from demo.models.loading import LoadedModel
from demo.utils.progress import ProgressLine

# Answers a batch of rollouts; see `RolloutGenerator.generate`.
Generate = Callable[[Sequence[Rollout], Sampling], list[Reply]]


@dataclass(frozen=True)
class Settings:
    """How an extraction runs. Rollouts are sampled as in the paper (temperature .7, top-p .9).

    least: rollouts a role must have taken up to count; keep_all: count every rollout, whatever the judge says; band and
    floor: the cap, or None to choose it by a sweep.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    batch: int = 64
    least: int = 3
    keep_all: bool = False
    band: tuple[int, int] | None = None
    floor: str | None = None
    command: str = "python -m demo.extraction"

    def sampling(self, plan: Plan) -> Sampling:
        return Sampling(self.temperature, self.top_p, plan.max_new_tokens, self.seed, 1.0)

    @property
    def verdicts(self) -> tuple[str, ...]:
        return ALL if self.keep_all else KEPT


def extract(
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    judge: Judge,
    out: Path,
    generate: Generate | None = None,
) -> Built:
    """Gather what `plan` asks for and write axis.safetensors, axis.json, report.md with its plots and rollouts.jsonl
    into `out`.

    Unfinished work lives in out/.unfinished, one folder per combination of model, plan and settings, and is taken up
    again by the next run with the same combination. It loses one batch at most. UserError when too few roles were taken up.
    """
    work = out / ".unfinished" / _fingerprint(model, plan, settings, judge)
    state = gather(model, plan, settings, judge, work, generate)
    vectors = Vectors(state, plan, settings.verdicts)
    built = build(
        state, plan, choose_cast(vectors, plan, settings.least), vectors, _about(model, plan, settings, judge)
    )
    built = _choose_cap(built, model, plan, settings, work)
    save_axis(built.axis, out)
    write_report(out, built, controls(built.axis, state, plan, vectors))
    with (out / "rollouts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in state.texts)
    shutil.rmtree(out / ".unfinished", ignore_errors=True)
    return built


def gather(
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    judge: Judge,
    work: Path,
    generate: Generate | None = None,
) -> State:
    """All rollouts of the plan, from the saved state on. Held-out ones come after the axis that is tested on them."""
    generate = generate or RolloutGenerator(model).generate
    batches = batches_of(plan.rollouts, settings.batch)
    state = State.load(work, work.name)
    if state.held_out and state.verdicts != settings.verdicts:
        state.forget_held_out(sum(batch[0].split == "extract" for batch in batches))
    progress, axes = ProgressLine("rollouts"), None
    for batch in batches[state.batches :]:
        progress.update(state.batches / len(batches), f"({len(state.texts)} of {len(plan.rollouts)})")
        if batch[0].split == "held_out" and axes is None:
            axes = fold_axes(choose_cast(Vectors(state, plan, settings.verdicts), plan, settings.least), plan)
        for judged in _judged(generate(batch, settings.sampling(plan)), judge):
            if batch[0].split != "held_out":
                state.add(judged, plan.max_new_tokens)
            else:
                assert axes is not None
                mean = judged.reply.mean
                units = (torch.cat([mean, mean.new_ones(len(mean), 1)], dim=-1) * axes).sum(-1)
                fold = plan.fold(judged.rollout.group) if judged.rollout.is_role else slice(None)
                state.add_held_out(judged, units[fold])
        state.batches, state.verdicts = state.batches + 1, settings.verdicts
        state.save(work, work.name)
    progress.update(1.0, f"({len(plan.rollouts)} rollouts)")
    return state


def _judged(replies: Sequence[Reply], judge: Judge) -> list[Judged]:
    played = [reply for reply in replies if reply.rollout.is_role]
    scores = dict(zip((reply.rollout.index for reply in played), judge.scores(played), strict=True))
    return [
        Judged(reply, score := scores.get(reply.rollout.index), score is None or score >= judge.threshold)
        for reply in replies
    ]


def batches_of(rollouts: Sequence[Rollout], size: int) -> list[Sequence[Rollout]]:
    """Runs of at most `size` rollouts of one split."""
    batches: list[Sequence[Rollout]] = []
    start = 0
    while start < len(rollouts):
        end = start
        while end < min(start + size, len(rollouts)) and rollouts[end].split == rollouts[start].split:
            end += 1
        batches.append(rollouts[start:end])
        start = end
    return batches


def _choose_cap(built: Built, model: LoadedModel, plan: Plan, settings: Settings, work: Path) -> Built:
    if settings.band is not None:
        return with_cap(built, settings.band, settings.floor or "p25", (), "the command line")
    # The rollouts are shared by runs that count other ones of them; the axis, and so the sweep, is not.
    path = work / f"sweep-{'-'.join(settings.verdicts)}.json"
    trials = Sweep(model, built.axis, plan, path, settings.seed).run(candidate_bands(built.axis.layers))
    best = choose(trials)
    assert best.layers is not None and best.floor is not None
    return with_cap(built, best.layers, settings.floor or best.floor, tuple(trials), "sweep")


def _about(model: LoadedModel, plan: Plan, settings: Settings, judge: Judge) -> dict[str, Any]:
    """Manifest entries that say what was run."""
    return {
        "model": {
            "id": model.spec,
            "revision": model.revision,
            "architecture": model.architecture,
            "layers": len(model.layers),
            "hidden_size": model.hidden_size,
            "vocab_size": len(model.tokenizer),
            "dtype": str(model.dtype).removeprefix("torch."),
        },
        "questions": {split: len(texts) for split, texts in plan.questions.items()},
        "default_prompts": list(plan.default_prompts),
        "rollouts": dict(Counter(_kind(rollout) for rollout in plan.rollouts)),
        "sampling": asdict(settings.sampling(plan)),
        "uptake": {"judge": judge.name, "threshold": judge.threshold, "least": settings.least,
                   "keep_all": settings.keep_all},
        "created_with": {"command": settings.command},
    }  # fmt: skip


def _kind(rollout: Rollout) -> str:
    side = rollout.group if not rollout.is_role else "roles"
    place = {"extract": "for the axis", "held_out": "held out", "control": "control"}[rollout.split]
    return f"{DEFAULT if rollout.group == DEFAULT else side}, {place}"


def _fingerprint(model: LoadedModel, plan: Plan, settings: Settings, judge: Judge) -> str:
    """Names everything the rollouts depend on, so that unlike runs are never mixed."""
    parts: list[Any] = [
        model.spec,
        model.revision,
        str(model.dtype),
        asdict(settings.sampling(plan)),
        settings.batch,
        judge.name,
        judge.threshold,
        settings.least,
    ]
    parts += [[r.system, r.text, r.group, r.split, r.half, r.sample] for r in plan.rollouts]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
