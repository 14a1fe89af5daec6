"""Runs an extraction: generates rollouts batch by batch, then builds the axis.

A run that was interrupted resumes where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event as CancelFlag
from typing import Any, Literal

import torch
from torch import Tensor

from demo.axis.directions import save_directions
from demo.axis.files import save_axis
from demo.engine.protocol import Sampling
from demo.extraction.axis import Built, build, choose_cast, fold_axes, with_cap
from demo.extraction.controls import controls
from demo.extraction.directions import from_state
from demo.extraction.judge import Judge
from demo.extraction.late_turns import measure_late_turns, with_late_turns
from demo.extraction.plan import DEFAULT, Plan, Preset, Rollout
from demo.extraction.report import write_report
from demo.extraction.rollouts import Reply, RolloutGenerator
from demo.extraction.sweep import Sweep, candidate_bands, choose
from demo.extraction.vectors import ALL, KEPT, Cast, Judged, State, Vectors
from demo.extraction.zones import Record, measure_zones, read_states
from demo.models.chat_template import default_system_prompt
from demo.models.loading import LoadedModel
from demo.utils.progress import ProgressLine
from demo.utils.resource_usage import give_memory_back

# With _WIDE rollouts at once a CPU spends most of a step on the rollouts and little on reading the weights.
# More would gain little. Where the KV cache of so many, or their logits, would exceed these bytes, fewer run
# together.
_WIDE, _NARROW = 128, 64
_KV_BYTES = 512 * 1024**2
_LOGIT_BYTES = 256 * 1024**2
_LOGIT_COPIES = 5  # sampling holds the logits in about so many forms, four bytes a number
_STATE = "with moments"  # what a saved state holds, so that those of earlier versions are not resumed
_PROMPT = 64  # about as many tokens as a rollout's prompt has

BASE_NOTE = (
    "This axis was made in plain transcripts (--base), as for a pretrained model, which knows no turns: the "
    "default is one more character, which the transcript introduces as an AI assistant."
)

# Generates the replies of a batch of rollouts; see `RolloutGenerator.generate`.
Generate = Callable[[Sequence[Rollout], Sampling], list[Reply]]


@dataclass(frozen=True)
class Settings:
    """How an extraction runs. Rollouts are sampled as in the paper (temperature .7, top-p .9).

    Attributes:
        batch: how many rollouts are generated at once.
        least: how many rollouts of a role must adopt it for the role to count.
        keep_all: count every rollout, whatever the judge says.
        band: first and last capped layer; None to choose them by a sweep.
        floor: name of the cap's floor; None to choose it by a sweep, or p25 for a given band.
        command: the command line, for the manifest.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    seed: int = 0
    batch: int = _NARROW
    least: int = 3
    keep_all: bool = False
    band: tuple[int, int] | None = None
    floor: str | None = None
    command: str = "python -m demo.extraction"

    def sampling(self, plan: Plan) -> Sampling:
        """How rollouts are sampled."""
        return Sampling(self.temperature, self.top_p, plan.max_new_tokens, self.seed, 1.0)

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The judge's verdicts with which a rollout counts."""
        return ALL if self.keep_all else KEPT


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far an extraction is.

    Attributes:
        stage: what is being done, of which `done` of `total` are finished.
        state: the rollouts so far; None in the later stages.
        newest: the replies of the last batch.
    """

    stage: Literal["rollouts", "late turns", "cap settings", "single replies"]
    done: int
    total: int
    state: State | None = None
    newest: Sequence[Judged] = ()


Watch = Callable[[Progressed], None]


def settings_for(model: LoadedModel, preset: Preset) -> Settings:
    """The settings that suit a model and the size of its extraction."""
    batch = suitable_batch(model, preset.max_new_tokens)
    return Settings(batch=batch, least=max(1, preset.role_rollouts // 4))


def suitable_batch(model: LoadedModel, max_new_tokens: int) -> int:
    """How many rollouts to generate at once, by what they hold alone, so that runs can resume."""
    cached = _WIDE * (_PROMPT + max_new_tokens) * model.token_bytes
    logits = _WIDE * model.model.config.get_text_config().vocab_size * 4 * _LOGIT_COPIES
    return _WIDE if cached <= _KV_BYTES and logits <= _LOGIT_BYTES else _NARROW


def extract(
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    judge: Judge,
    out: Path,
    generate: Generate | None = None,
    watch: Watch | None = None,
    cancel: CancelFlag | None = None,
) -> Built:
    """Generate the rollouts of `plan` and build the axis from them.

    It writes axis.safetensors, axis.json, directions.safetensors, report.md with its plots, and
    rollouts.jsonl into `out`. Unfinished work is kept in out/.unfinished, in one folder per combination of
    model, plan and settings. The next run with the same combination continues it; at most one batch is lost,
    or the scripted talks.

    Args:
        watch: called with what an earlier run has left, after every batch of rollouts, before every turn of
            the scripted talks, before settings of the cap are tried, and while the zones are measured.
        cancel: setting it stops the run within one step.

    Raises:
        UserError: too few roles were adopted.
        Stopped: the run was cancelled.
    """
    work = work_folder(model, plan, settings, judge, out)
    generate = generate or RolloutGenerator(model, cancel).generate
    state = gather(model, plan, settings, judge, work, generate, watch)
    vectors = Vectors(state, plan, settings.verdicts)
    cast = choose_cast(vectors, plan, settings.least)
    built = build(state, plan, cast, vectors, _about(model, plan, settings, judge))
    if built.axis.manifest["variant"] == "standardised":
        cast = replace(cast, variance=state.variance(settings.verdicts))
    built = _hold_talks(built, model, plan, settings, work, watch, cancel)
    built = _choose_cap(built, model, plan, settings, work, watch, cancel)
    built = _with_zones(built, model, plan, settings, state, cast, watch, cancel)
    checked = controls(built.axis, state, plan, vectors)
    shift = checked.template_shift
    moved = {"template_shift": None if shift is None else round(shift, 4)}
    built = replace(built, axis=replace(built.axis, manifest=built.axis.manifest | moved))
    save_axis(built.axis, out)
    # Other directions in the folder were measured beside another axis, and go.
    save_directions(from_state(built.axis, state, vectors), out)
    write_report(out, built, checked)
    with (out / "rollouts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in state.texts)
    shutil.rmtree(work, ignore_errors=True)
    with suppress(OSError):  # there is unfinished work of other runs
        work.parent.rmdir()
    return built


def work_folder(model: LoadedModel, plan: Plan, settings: Settings, judge: Judge, out: Path) -> Path:
    """Where the unfinished work of this run is kept, under the folder of the axis."""
    return out / ".unfinished" / _fingerprint(model, plan, settings, judge)


def share_done(model: LoadedModel, plan: Plan, settings: Settings, judge: Judge, out: Path) -> float:
    """The share of the rollouts that an interrupted run has left in the folder of the axis; 0 without one."""
    work = work_folder(model, plan, settings, judge, out)
    return State.load(work, work.name).batches / len(batches_of(plan.rollouts, settings.batch))


def gather(
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    judge: Judge,
    work: Path,
    generate: Generate | None = None,
    watch: Watch | None = None,
) -> State:
    """Generate all rollouts of the plan that are not in the saved state yet.

    Held-out rollouts come after those of the axis, because they are projected onto it at once.
    """
    generate = generate or RolloutGenerator(model).generate
    batches = batches_of(plan.rollouts, settings.batch)
    state = State.load(work, work.name)
    if state.held_out and state.verdicts != settings.verdicts:
        state.forget_held_out(sum(batch[0].split == "extract" for batch in batches))
    progress, axes = ProgressLine("rollouts"), None
    if watch and state.batches:  # an earlier run has left them
        watch(Progressed("rollouts", len(state.texts), len(plan.rollouts), state))
    for batch in batches[state.batches :]:
        progress.update(state.batches / len(batches), f"({len(state.texts)} of {len(plan.rollouts)})")
        if batch[0].split != "extract" and axes is None:
            cast = choose_cast(Vectors(state, plan, settings.verdicts), plan, settings.least)
            weighted = replace(cast, variance=state.variance(settings.verdicts))
            axes = torch.stack([fold_axes(one, plan) for one in (cast, weighted)])
        newest = _judged(generate(batch, settings.sampling(plan)), judge)
        for judged in newest:
            if judged.rollout.split != "held_out":
                state.add(judged, plan.max_new_tokens)
            else:
                assert axes is not None
                mean = judged.reply.mean
                units = (torch.cat([mean, mean.new_ones(len(mean), 1)], dim=-1) * axes).sum(-1)
                fold = plan.fold(judged.rollout.group) if judged.rollout.is_role else slice(None)
                state.add_held_out(judged, *units[:, fold])
        state.batches, state.verdicts = state.batches + 1, settings.verdicts
        state.save(work, work.name)
        if watch:
            watch(Progressed("rollouts", len(state.texts), len(plan.rollouts), state, newest))
        give_memory_back()
    progress.update(1.0, f"({len(plan.rollouts)} rollouts)")
    return state


def _judged(replies: Sequence[Reply], judge: Judge) -> list[Judged]:
    """The replies with the judge's scores. Replies of the default Assistant have none and count as kept."""
    played = [reply for reply in replies if reply.rollout.is_role]
    scores = dict(zip((reply.rollout.index for reply in played), judge.scores(played), strict=True))
    return [
        Judged(reply, score := scores.get(reply.rollout.index), score is None or score >= judge.threshold)
        for reply in replies
    ]


def batches_of(rollouts: Sequence[Rollout], size: int) -> list[Sequence[Rollout]]:
    """The rollouts in order, in batches of at most `size`, none of which mixes extraction with the rest."""
    first = sum(rollout.split == "extract" for rollout in rollouts)
    return [
        part[start : start + size]
        for part in (rollouts[:first], rollouts[first:])
        for start in range(0, len(part), size)
    ]


def _hold_talks(
    built: Built,
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    work: Path,
    watch: Watch | None,
    cancel: CancelFlag | None,
) -> Built:
    """The same axis with the gate on late turns."""
    path = work / f"late-turns-{'-'.join(settings.verdicts)}.json"

    def held(done: int, total: int) -> None:
        if watch:
            watch(Progressed("late turns", done, total))

    found = measure_late_turns(model, built.axis, plan, settings.sampling(plan), path, held, cancel)
    return replace(built, axis=with_late_turns(built.axis, found))


def _choose_cap(
    built: Built,
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    work: Path,
    watch: Watch | None,
    cancel: CancelFlag | None,
) -> Built:
    if settings.band is not None:
        return with_cap(built, settings.band, settings.floor or "p25", (), "the command line")
    # Runs with other verdicts share the rollouts, but not the axis, and so not the sweep.
    path = work / f"sweep-{'-'.join(settings.verdicts)}.json"

    def tried(done: int, total: int) -> None:
        if watch:
            watch(Progressed("cap settings", done, total))

    sweep = Sweep(model, built.axis, plan, path, settings.seed, settings.batch, tried, cancel)
    trials = sweep.run(candidate_bands(built.axis.layers))
    best = choose(trials, built.axis.probe_layer)
    assert best.layers is not None and best.floor is not None
    return with_cap(built, best.layers, settings.floor or best.floor, tuple(trials), "sweep")


def _with_zones(
    built: Built,
    model: LoadedModel,
    plan: Plan,
    settings: Settings,
    state: State,
    cast: Cast,
    watch: Watch | None,
    cancel: CancelFlag | None,
) -> Built:
    """The same axis with its zones, where there are held-out replies to measure them."""

    progress = ProgressLine("single replies")

    def read(done: int, total: int) -> None:
        progress.update(done / total, f"({done} of {total})")
        if watch:
            watch(Progressed("single replies", done, total))

    probe = built.axis.probe_layer

    def states(records: Sequence[Record]) -> Iterator[Tensor]:
        return read_states(model, records, probe, read, cancel)

    zones = measure_zones(states, state.texts, fold_axes(cast, plan)[:, probe], settings.keep_all)
    if zones is None:
        return built
    return replace(built, axis=replace(built.axis, manifest=built.axis.manifest | {"zones": zones}))


def _about(model: LoadedModel, plan: Plan, settings: Settings, judge: Judge) -> dict[str, Any]:
    """The manifest's entries on how the axis was made."""
    return {
        "model": {
            "id": model.spec,
            "base": model.base,
            "revision": model.revision,
            "digest": model.digest,
            "architecture": model.architecture,
            "layers": len(model.layers),
            "hidden_size": model.hidden_size,
            "vocab_size": len(model.tokenizer),
            "dtype": model.dtype_name,
        },
        "questions": {split: len(texts) for split, texts in plan.questions.items()},
        "default_prompts": list(plan.default_prompts),
        "role_prompts": plan.role_prompts,
        "template_system_prompt": default_system_prompt(model.tokenizer),
        **({"notes": [BASE_NOTE]} if model.base else {}),
        "rollouts": dict(Counter(_kind(rollout) for rollout in plan.rollouts)),
        "sampling": asdict(settings.sampling(plan)),
        "uptake": {
            "judge": judge.name,
            "threshold": judge.threshold,
            "least": settings.least,
            "keep_all": settings.keep_all,
        },
        "created_with": {"command": settings.command},
    }


def _kind(rollout: Rollout) -> str:
    """The kind of a rollout in words, for the manifest."""
    side = rollout.group if not rollout.is_role else "roles"
    place = {"extract": "for the axis", "held_out": "held out", "control": "control"}[rollout.split]
    return f"{DEFAULT if rollout.group == DEFAULT else side}, {place}"


def _fingerprint(model: LoadedModel, plan: Plan, settings: Settings, judge: Judge) -> str:
    """A hash of everything that the rollouts depend on, so that different runs are never mixed."""
    inputs: list[Any] = [
        model.spec,
        model.revision,
        str(model.dtype),
        *(["int8"] if model.eight_bit else []),
        asdict(settings.sampling(plan)),
        settings.batch,
        judge.name,
        judge.threshold,
        settings.least,
        _STATE,
    ]
    inputs += ["in plain transcripts"] * model.base
    # Earlier versions saved no histories.
    inputs += ["with histories"] * any(rollout.history for rollout in plan.rollouts)
    inputs += [[r.system, r.text, r.history, r.group, r.split, r.half, r.sample] for r in plan.rollouts]
    return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
