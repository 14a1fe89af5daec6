"""Makes the axis of a model that has none, so that a page can show it happening and people can stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Condition
from threading import Event as CancelFlag
from typing import Any

from demo.axis.axis import FLOOR_NAMES
from demo.axis.gates import measured_gates
from demo.axis.store import new_home
from demo.engine.protocol import Load, Request, Sampling, TokenEvent
from demo.engine.transformers_engine import TransformersEngine
from demo.extraction.axis import Built
from demo.extraction.judge import Judge, LikelihoodJudge
from demo.extraction.late_turns import TURNS
from demo.extraction.pace import measure_pace
from demo.extraction.plan import PRESETS, Plan, RolePrompts, make_plan
from demo.extraction.rollouts import Stopped, placeholder_axis
from demo.extraction.run import Progressed, Settings, extract, settings_for, share_done
from demo.extraction.so_far import Check, Making, Offer, reply_so_far, roles_so_far
from demo.extraction.sweep import candidate_bands
from demo.extraction.vectors import Judged, State
from demo.extraction.zones import most_read
from demo.models.chat_template import Message
from demo.models.loading import LoadedModel
from demo.utils.errors import UserError
from demo.utils.json_files import read_object

OFFERED = ("quick", "standard")  # presets

_NEWEST = 6  # replies that are shown
_CHAT_KV = 256 * 1024**2  # bytes
_CHATS = 8  # that are answered at once
_CHAT_SAMPLING = Sampling(max_new_tokens=128, soft_limit=60)


@dataclass(frozen=True)
class _Job:
    """An extraction with all that it depends on."""

    plan: Plan
    settings: Settings
    judge: Judge
    out: Path

    def share_done(self, model: LoadedModel) -> float:
        """The share of the work that an interrupted run has left, as far as its rollouts show."""
        rollouts = share_done(model, self.plan, self.settings, self.judge, self.out)
        whole = len(self.plan.rollouts)
        return self.share(Progressed("rollouts", round(rollouts * whole), whole), model.layer_count)

    def share(self, progressed: Progressed, layers: int) -> float:
        """How much of the work is done, counted in replies."""
        settings = len(candidate_bands(layers)) + len(FLOOR_NAMES)
        work = {
            "rollouts": len(self.plan.rollouts),
            "late turns": 2 * self.plan.late_talks * TURNS,
            "cap settings": 2 * self.plan.sweep_questions * settings,
            # To read a reply takes about half as long as to generate it.
            "single replies": most_read(self.plan) / 2,
        }
        stages = list(work)
        before = sum(work[stage] for stage in stages[: stages.index(progressed.stage)])
        return (before + progressed.done / progressed.total * work[progressed.stage]) / sum(work.values())


def job_of(model: LoadedModel, preset: str, role_prompts: RolePrompts = "plain") -> _Job:
    """The extraction of a preset on `model`, into the folder of this machine's axes."""
    size = replace(PRESETS[preset], role_prompts=role_prompts)
    plan = make_plan(model.slug.split("-")[0], size, base=model.base)
    return _Job(plan, settings_for(model, size), LikelihoodJudge(model), new_home(model))


def is_lesser(folder: Path, model: LoadedModel, preset: str, role_prompts: RolePrompts | None = None) -> bool:
    """Whether an axis was made on this machine from fewer rollouts than the preset has, or other prompts.

    Args:
        role_prompts: how roles are to be asked for; None if any way will do. An axis from more rollouts is
            kept in any case.
    """
    if folder != new_home(model):
        return False
    manifest = read_object(folder / "axis.json", "extract the axis again")
    rollouts, wanted = manifest.get("rollouts"), len(job_of(model, preset).plan.rollouts)
    made = sum(rollouts.values()) if isinstance(rollouts, dict) else wanted
    other = role_prompts is not None and manifest.get("role_prompts", "plain") != role_prompts
    return made < wanted or (made == wanted and other)


class AxisMaker:
    """Makes the axis of a model. One thread runs it; any other may look, start, stop and chat.

    Chatting takes turns with it, one forward pass each, and changes no bit of the rollouts.
    """

    def __init__(
        self,
        model: LoadedModel,
        preset: str | None = None,
        watched: bool = True,
        role_prompts: RolePrompts = "plain",
    ) -> None:
        """Prepare to make the axis of `model`; nothing runs yet.

        Args:
            preset: start it at once; None to wait until somebody starts one.
            watched: whether there is a page, from which it can be tried again after a failure.
            role_prompts: how roles are asked for.
        """
        self._model, self._watched = model, watched
        self._jobs = {name: job_of(model, name, role_prompts) for name in OFFERED}
        axis = placeholder_axis(model.layer_count, model.hidden_size)
        self._chat = TransformersEngine(model, axis, kv_budget=_CHAT_KV, sequences=_CHATS, own_thread=True)
        self._changed = Condition()
        self._wanted = preset
        self._cancel, self._closed = CancelFlag(), False
        offers = {
            name: Offer(len(job.plan.roles), None, job.share_done(model)) for name, job in self._jobs.items()
        }
        self._now = Making(model.slug, "measuring", offers, role_prompts=role_prompts)

    # --- for any thread

    @property
    def load(self) -> Load:
        """How busy the chats are."""
        return self._chat.load

    @property
    def now(self) -> Making:
        """How it stands."""
        with self._changed:
            return self._now

    def start(self, preset: str) -> None:
        """Start a preset, or go on with it. Nothing happens while one is running.

        Raises:
            UserError: there is no such preset.
        """
        if preset not in self._jobs:
            raise UserError(f"There is no extraction {preset!r}: choose {' or '.join(OFFERED)}.")
        with self._changed:
            if self._now.phase in ("running", "done"):
                return
            self._wanted = preset
            self._cancel.set()  # the measurement, if it is still going on
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop what is running, within one step. It can be started again."""
        with self._changed:
            self._wanted = None
            self._cancel.set()

    def close(self) -> None:
        """End `run`, whatever it is doing."""
        with self._changed:
            self._closed = True
            self._cancel.set()
            self._changed.notify_all()

    def answer(self, messages: Sequence[Message]) -> Iterator[str]:
        """The model's own reply to a chat, piece by piece.

        Raises:
            UserError: the chat does not fit the context window.
        """
        for event in self._chat.stream([Request("chat", tuple(messages), _CHAT_SAMPLING)]):
            if isinstance(event, TokenEvent):
                if event.fault:
                    raise UserError(event.fault)
                yield event.token.text

    # --- for the thread that computes

    def run(self) -> Path:
        """Wait until somebody starts a preset, make the axis, and return its folder.

        Raises:
            Stopped: it was closed.
            UserError: it failed, and there is no page on which to say so.
        """
        self._measure()
        while True:
            preset = self._next()
            try:
                built = self._extract(preset)
            except Stopped:
                self._note_stopped()
            except (UserError, OSError) as error:  # an OSError such as a full disk
                if not self._watched:
                    raise
                self._set(phase="failed", message=str(UserError(str(error))), seconds_left=None)
            else:
                gates = measured_gates(built.axis.manifest).values()
                checks = tuple(Check(words, passed) for words, passed in gates)
                self._set(phase="done", share=1.0, seconds_left=0.0, checks=checks)
                return self._jobs[preset].out

    def _measure(self) -> None:
        """Find out how long the presets will take, unless one is wanted already."""
        job = self._jobs[OFFERED[0]]
        with suppress(Stopped, UserError):  # the time is then not known
            if self._wanted is None:
                pace = measure_pace(self._model, job.plan, job.settings, job.judge, self._cancel)
                self._offer(
                    {
                        name: pace.seconds(job.plan, job.settings, self._model.layer_count) / 60
                        for name, job in self._jobs.items()
                    }
                )
        self._set(phase="ready")

    def _next(self) -> str:
        """The preset that somebody has started."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._wanted is not None)
            if self._closed or self._wanted is None:
                raise Stopped
            preset, self._wanted = self._wanted, None
            self._cancel.clear()
            now = self._now
            fresh = Making(now.model, "running", now.offers, preset, role_prompts=now.role_prompts)
            self._now = replace(fresh, share=self._now.offers[preset].done)
            return preset

    def _extract(self, preset: str) -> Built:
        job = self._jobs[preset]
        began = time.monotonic(), self._now.share

        def watch(progressed: Progressed) -> None:
            now, share = time.monotonic(), job.share(progressed, self._model.layer_count)
            fresh = share - began[1]
            left = None if fresh <= 0 else (now - began[0]) * (1 - share) / fresh
            self._set(share=share, stage=progressed.stage, seconds_left=left)
            if progressed.state is not None:
                self._show_state(job, progressed.state, progressed.newest)

        return extract(
            self._model, job.plan, job.settings, job.judge, job.out, watch=watch, cancel=self._cancel
        )

    def _show_state(self, job: _Job, state: State, newest: Sequence[Judged]) -> None:
        roles, halves = roles_so_far(state, job.plan, job.settings.verdicts, self._model.layer_count // 2)
        replies = tuple(reply_so_far(judged) for judged in newest[-_NEWEST:])
        self._set(roles=roles, halves=halves, replies=replies)

    def _note_stopped(self) -> None:
        with self._changed:
            offers = dict(self._now.offers)
            job, preset = self._jobs[self._now.preset], self._now.preset
            offers[preset] = replace(offers[preset], done=job.share_done(self._model))
            self._now = replace(self._now, phase="stopped", offers=offers, seconds_left=None)

    def _offer(self, minutes: dict[str, float]) -> None:
        offers = self._now.offers
        self._set(offers={name: replace(offer, minutes=minutes[name]) for name, offer in offers.items()})

    def _set(self, **changes: Any) -> None:
        with self._changed:
            self._now = replace(self._now, **changes)
