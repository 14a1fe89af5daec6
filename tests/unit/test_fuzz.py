"""Everything that reads data from outside, with thousands of damaged and hostile versions of it.

A reader may only accept its input or refuse it in one sentence, within two seconds and 200 MiB. The
results are written to docs/trust.md by `python -m tests.trust`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import zipfile
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import gradio as gr
import pytest
import torch
from safetensors.torch import save

from demo.axis.components import persona_map
from demo.axis.files import load_axis, save_axis
from demo.axis.gates import reliability
from demo.axis.importer.build import ImportOptions, import_axis
from demo.conversation.exports import COLUMNS, tokens_csv
from demo.conversation.scenarios import SCENARIOS, load_scenarios
from demo.conversation.session_file import MOST_BYTES, dumps, loads
from demo.conversation.settings import CapChoice, TurnSettings
from demo.conversation.settings_json import settings_json
from demo.conversation.transcripts import parse_transcript
from demo.engine.protocol import Cap, Request, Sampling, Shift, Steer, Token, TokenEvent
from demo.engine.remote.codec import event_from, event_json, request_from, request_json
from demo.models.chat_template import Message
from demo.models.default import DEFAULT_MODEL
from demo.page.api import conversation_from
from demo.page.chat_handlers import ChatHandlers
from demo.page.evaluation_panel import evaluation_text
from demo.page.hosting import Limits
from demo.page.persistence import persist_op, restore_chats
from demo.page.rate_limit import RateLimiter
from demo.page.recordings import ENDING, FOLDER, chat_of, checked_text, download_op
from demo.page.session import Session
from demo.page.settings_panel import panel_values
from demo.page.stage.protocol import REQUESTS
from demo.page.stage_handlers import StageHandlers
from demo.plots.marks import PlotMarks
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from tests.helpers.axes import random_axis, with_components
from tests.helpers.hostile import LoaderTrial, as_json, junk, mangled, mangled_bytes, mutated, seeds
from tests.helpers.scripted import ScriptedEngine

pytestmark = pytest.mark.slow

# The numbers of cases add up to more than ten thousand; PERSONA_DRIFT_FUZZ multiplies them.
FACTOR = float(os.environ.get("PERSONA_DRIFT_FUZZ", "1"))


def cases(count: int) -> int:
    return int(count * FACTOR)


def write(path: Path, text: str) -> None:
    """Write hostile text, which may hold lone surrogates."""
    path.write_text(text, encoding="utf-8", errors="surrogatepass")


def report(trial: LoaderTrial) -> None:
    """Check that some cases were accepted and some refused, and report the trial."""
    assert trial.refused and trial.accepted
    trial.report()


def first_recording() -> Any:
    """The content of the first session file that comes with the program."""
    return json.loads(next(iter(sorted(FOLDER.glob(f"*{ENDING}")))).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def small_session() -> Any:
    """A session file that is short enough to be changed thousands of times."""
    data = first_recording()
    data["turns"] = data["turns"][:2]
    for turn in data["turns"]:
        for reply in turn["branches"].values():
            reply["tokens"] = reply["tokens"][:6]
    cap, marks = Cap((1, 2), (0.5, 0.25)), PlotMarks(1, 0.5, "p25", True, (1, 2))
    made = TurnSettings(Sampling(), cap, "Be kind.", Steer(1, 1.5), marks=marks, dtype="float32")
    data["turns"][0]["settings"] = settings_json(made)  # the other turn has none, as in earlier versions
    data["map"]["roles"] = data["map"]["roles"][:5]
    return data


def test_session_files(small_session):
    """Accepted files are also shown, saved again and exported."""
    trial, text = LoaderTrial("session files"), json.dumps(small_session)

    def load(hostile: str, export: bool) -> None:
        recording = loads(hostile)
        assert loads(dumps(recording)) is not None
        for kind in ("csv", "html") if export and recording.turns else ():
            op = download_op(chat_of(recording, ""), recording, kind)
            assert "/" not in op["name"]
            assert kind == "csv" or "<script>alert" not in op["text"]
        for row in csv.DictReader(io.StringIO(tokens_csv(recording).removeprefix("\ufeff"), newline="")):
            assert tuple(row) == COLUMNS, "a text has broken its row"
            texts = (row[name] for name in ("text", "floor_name", "dtype"))
            assert not any(text.startswith(("=", "+", "-", "@", "\t", "\r")) for text in texts)

    for number, rng in enumerate(seeds(cases(3500))):
        if number % 3 == 0:
            hostile = mangled(rng, text)
        else:
            hostile = as_json(mutated(rng, small_session, rng.choice((1, 1, 2, 6))))
        trial.run(partial(load, hostile, export=number % 10 == 0))
    report(trial)


def test_session_files_at_the_size_limit():
    trial = LoaderTrial("session files at and above the size limit")
    data = first_recording()
    data["turns"] *= MOST_BYTES // len(as_json(data["turns"]))
    text = as_json(data)
    assert MOST_BYTES * 0.8 < len(text) <= MOST_BYTES
    assert trial.run(partial(loads, checked_text(text))) is not None
    trial.run(lambda: loads(checked_text(text + " " * (MOST_BYTES + 1 - len(text)))))
    trial.run(lambda: loads(checked_text("[" * MOST_BYTES)))
    assert (trial.accepted, trial.refused) == (1, 2)
    report(trial)


def test_transcripts():
    chat = {
        "model": "m",
        "turns": 2,
        "conversation": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "hello"},
            {"role": "human", "content": "bye"},
        ],
    }
    trial, text = LoaderTrial("transcripts"), json.dumps(chat)
    for number, rng in enumerate(seeds(cases(2000))):
        if number % 3 == 0:
            hostile = mangled(rng, text)
        else:
            hostile = as_json(mutated(rng, chat, rng.choice((1, 2, 5))))
        trial.run(lambda hostile=hostile: parse_transcript(hostile).unread_turns())
    report(trial)


def test_axis_folders(tmp_path):
    """Accepted axes are also shown: banner, persona map, evaluation and reference lines."""
    axis = with_components(random_axis(4, 16, 1, (1, 2)))
    save_axis(axis, tmp_path)
    manifest, tensors = tmp_path / "axis.json", tmp_path / "axis.safetensors"
    shipped = json.loads((AXES / DEFAULT_MODEL / "axis.json").read_text(encoding="utf-8"))
    shipped["roles"] = shipped["roles"][:3]
    whole = shipped | {"probe_layer": 1, "cap": {"layers": [1, 2], "floor": "p25"}}
    good = tensors.read_bytes()
    trial = LoaderTrial("axis folders")

    def load() -> None:
        found = load_axis(tmp_path)
        reliability(found.manifest)
        persona_map(found)
        evaluation_text(found, tmp_path)
        CapChoice.of_axis(found).marks(found)

    for number, rng in enumerate(seeds(cases(2000))):
        if number % 2:
            write(manifest, as_json(mutated(rng, whole, rng.choice((1, 1, 2)))))
            tensors.write_bytes(good)
        else:
            manifest.write_text(json.dumps(whole))
            tensors.write_bytes(mangled_bytes(rng, good))
        trial.run(load)
    report(trial)


def test_published_axes(tmp_path):
    """Tensor files: changed bytes, pickles that would run code, archives that would unpack to terabytes."""
    trial, axis = LoaderTrial("published axes"), torch.randn(4, 16)
    buffer = io.BytesIO()
    torch.save({"axis": axis, "metadata": {"a": 1}}, buffer)
    good = {".pt": buffer.getvalue(), ".safetensors": save({"axis": axis})}
    proof, caps = tmp_path / "ran", tmp_path / "caps.json"
    options = ImportOptions(sign="assistant", caps=caps, probe_layer=1)
    for number, rng in enumerate(seeds(cases(1500))):
        suffix = (".pt", ".safetensors")[number % 2]
        path = tmp_path / f"axis{suffix}"
        if number % 5 == 0:
            path.write_bytes(_hostile_file(rng, good[suffix], proof))
        else:
            path.write_bytes(mangled_bytes(rng, good[suffix]))
        write(caps, as_json(mutated(rng, {"1": 0.5, "2": 0.7}, rng.randrange(3))))
        trial.run(partial(import_axis, path, options))
    assert not proof.exists(), "a file has run code"
    report(trial)


class _RunsCode:
    """Creates a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.proof,))


def _hostile_file(rng: Random, good: bytes, proof: Path) -> bytes:
    """A pickle, an archive with a pickle, or a safetensors file with a false header."""
    kind = rng.randrange(4)
    if kind == 0:
        return pickle.dumps({"axis": _RunsCode(proof)})
    if kind == 1:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(_RunsCode(proof)))
            archive.writestr("archive/data/0", bytes(50 * 2**20))  # packed, it is a thousand times smaller
        return buffer.getvalue()
    if kind == 2:
        tensor = {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}
        head = json.dumps({"axis": tensor}).encode()
        return len(head).to_bytes(8, "little") + head
    return (2 ** rng.randrange(64)).to_bytes(8, "little") + good[8:]


def test_scenario_files(tmp_path):
    trial, path = LoaderTrial("scenario files"), tmp_path / "scenarios.json"
    whole = json.loads(SCENARIOS.read_text(encoding="utf-8"))
    whole["scenarios"] = whole["scenarios"][:2]
    for rng in seeds(cases(1000)):
        write(path, as_json(mutated(rng, whole, rng.choice((1, 2)))))
        trial.run(partial(load_scenarios, path))
    report(trial)


def test_settings():
    """Any program can send settings to the page's endpoints."""
    trial, axis = LoaderTrial("settings"), random_axis(4, 16, 1, (1, 2))
    good = ["", 0.3, 0.9, 1.1, 24, 12, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2]
    for rng in seeds(cases(2000)):
        values = list(good)
        for _ in range(rng.choice((1, 1, 3))):
            values[rng.randrange(len(values))] = junk(rng)
        trial.run(partial(panel_values(values).turn_settings, axis, 0))
    report(trial)


def test_requests_of_the_stage():
    """Any program can send the requests that the page's own buttons send."""

    def only_user_errors(error: Exception, unexpected: str) -> str:
        if not isinstance(error, UserError):
            raise error
        return str(error)

    trial, axis = LoaderTrial("requests of the stage"), random_axis(4, 16, 1, (1, 2))
    limiter = RateLimiter(Limits(per_minute=10**9))
    handlers = ChatHandlers(ScriptedEngine(), axis, "tiny", limiter, explain=only_user_errors)
    stage, session, no_request = StageHandlers(handlers), Session(), cast(gr.Request, None)
    settings = panel_values(("", 0.3, 0.9, 1.1, 8, 0, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2))

    def send(data: Any) -> None:
        updates = list(stage.dispatch(session, data, settings, no_request))
        if not session.chat.conversation.turns:
            list(handlers.send(session, "hello", settings, no_request))
        if '"level":"error"' in (updates[0].stage or ""):
            raise UserError("It was refused with a notice.")

    for rng in seeds(cases(1500)):
        trial.run(partial(send, _stage_request(rng)))
    report(trial)


def _stage_request(rng: Random) -> Any:
    """A request of the stage with up to two values replaced, or something else altogether."""
    request: dict[str, Any] = {
        "do": rng.choice(sorted(REQUESTS)),
        "turn": rng.choice((0, 1)),
        "conversation": 0,
        "conversations": [],
        "current": 0,
        "draft": None,
        "how": None,
        "text": "x",
        "kind": "json",
        "name": "demon",
        "branch": rng.choice(("capped", "uncapped")),
    }
    for _ in range(rng.choice((0, 1, 2))):
        request[rng.choice(list(request))] = junk(rng)
    return request if rng.random() < 0.95 else junk(rng)


def test_conversations_kept_by_the_browser(small_session):
    """Any program can send them back to the page; accepted ones are also shown and kept again."""
    trial = LoaderTrial("conversations kept by the browser")
    kept = {
        **small_session,
        "id": "0123456789abcdef",
        "script": ["a", "b"],
        "scripted": [0],
        "content_warning": "",
        "recorded": False,
    }

    def restore(texts: Any, current: Any, model: str) -> None:
        session = Session()
        restore_chats(session, texts, current, model)
        assert session.chat.conversation.turns or session.chat.next_line() is not None
        assert session.overview()["ids"]
        if texts:  # none where the tab was reloaded during its first reply
            assert json.dumps(persist_op(session.chat, loads(texts[0])))

    for rng in seeds(cases(1500)):
        texts: Any = [
            as_json(mutated(rng, kept, rng.choice((0, 1, 2)))) for _ in range(rng.choice((1, 1, 2)))
        ]
        if rng.random() < 0.05:
            texts = junk(rng)
        current, model = junk(rng), rng.choice((small_session["model"], "another"))
        trial.run(partial(restore, texts, current, model))
    report(trial)


def test_histories_of_the_api():
    trial, history = LoaderTrial("histories of the API"), [{"user": "a", "uncapped": "b", "capped": "c"}]
    for rng in seeds(cases(800)):
        trial.run(partial(conversation_from, mutated(rng, history, rng.choice((1, 2)))))
    report(trial)


def test_requests_and_events_between_processes():
    trial = LoaderTrial("requests and events of an engine process")
    said: Message = {"role": "user", "content": "Hello <|im_end|> ✨"}
    cap = Cap((1, 2), (0.5, 0.25), "warm", True)
    request = Request(
        "a",
        (said,),
        Sampling(max_new_tokens=5),
        cap,
        Steer(1, 0.5, "warm"),
        also=cap,
        along=("warm",),
        first=(0.5, 1.0),
        previous=(0.25, 1.0),
    )
    read = Token("x", 0.1, 0.2, (0.1,), False, (0.1, 0.2, 0.3), plain=0.1, along=(0.5,), also=0.5)
    shift, step = Shift(2.0, 1.0), Shift(1.0, -0.5)
    token = TokenEvent("a", 3, read, 7, "stop", state=(0.5, 1.0), shift=shift, step=step)
    good_request = json.loads(json.dumps(request_json(request)))
    good_event = json.loads(json.dumps(event_json(token)))
    for rng in seeds(cases(1500)):
        trial.run(partial(request_from, mutated(rng, good_request, rng.choice((1, 2)))))
        event = mutated(rng, good_event, 1)
        if isinstance(event, dict):
            trial.run(partial(event_from, event))
    report(trial)
