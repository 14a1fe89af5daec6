"""Run an extraction: gather rollouts batch by batch, resuming where an earlier run stopped, then build the axis."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.engine.protocol import Sampling
from demo.extraction.build import Built, build
from demo.extraction.plan import DEFAULT, Plan, Rollout
from demo.extraction.report import render
from demo.extraction.rollouts import run_batch
from demo.extraction.state import State
from demo.models import LoadedModel
from demo.progress import ProgressLine


@dataclass(frozen=True)
class Settings:
    """How an extraction runs. Rollouts are sampled as in the paper (temperature .7, top-p .9), but shorter."""

    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 56
    seed: int = 0
    batch: int = 64
    band: tuple[int, int] | None = None
    floor: str = "p25"
    command: str = "python -m demo.extraction"

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_new_tokens, self.seed, 1.0)


def extract(model: LoadedModel, plan: Plan, settings: Settings, out: Path) -> Built:
    """Gather what `plan` asks for and write axis.safetensors, axis.json and report.md into `out`.

    Unfinished work lives in out/.unfinished, one folder per combination of model, plan and settings, and is taken up
    again by the next run with the same combination. It loses one batch at most.
    """
    work = out / ".unfinished" / _fingerprint(model, plan, settings)
    state = gather(model, plan, settings, work)
    about_model = {
        "id": model.spec,
        "revision": model.revision,
        "architecture": model.architecture,
        "layers": len(model.layers),
        "hidden_size": model.hidden_size,
        "vocab_size": len(model.tokenizer),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
    counts = Counter(_kind(rollout) for rollout in plan.rollouts)
    run = {
        "questions": plan.questions,
        "default_prompts": list(plan.default_prompts),
        "rollouts": dict(counts),
        "sampling": asdict(settings.sampling),
        "created_with": {"command": settings.command},
    }
    built = build(state, plan, settings.band, settings.floor, about_model, run)
    built.axis.save(out)
    (out / "report.md").write_text(render(built, dict(counts)), encoding="utf-8")
    with (out / "rollouts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in state.texts)
    shutil.rmtree(out / ".unfinished", ignore_errors=True)
    return built


def gather(model: LoadedModel, plan: Plan, settings: Settings, work: Path) -> State:
    """All rollouts of the plan, from the saved state on."""
    size, total = settings.batch, len(plan.rollouts)
    batches = [plan.rollouts[start : start + size] for start in range(0, total, size)]
    state = State.load(work, work.name)
    progress = ProgressLine("rollouts")
    for batch in batches[state.batches :]:
        progress.update(state.batches / len(batches), f"({len(state.texts)} of {total})")
        state.add(run_batch(model, batch, settings.sampling))
        state.save(work, work.name)
    progress.update(1.0, f"({total} rollouts)")
    return state


def _kind(rollout: Rollout) -> str:
    side = "default" if rollout.group == DEFAULT else "roles"
    return f"{side}, {'held out' if rollout.split == 'held_out' else 'for the axis'}"


def _fingerprint(model: LoadedModel, plan: Plan, settings: Settings) -> str:
    """Names everything the rollouts depend on, so that unlike runs are never mixed."""
    parts: list[Any] = [
        model.spec,
        model.revision,
        str(model.dtype),
        asdict(settings.sampling),
        settings.batch,
    ]
    parts += [[rollout.system, rollout.text, rollout.group, rollout.split] for rollout in plan.rollouts]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
