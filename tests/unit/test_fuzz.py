"""Everything that reads what a stranger may have made, against thousands of broken and hostile versions of it.

None may do anything but accept or say one sentence, none may take two seconds or 200 MiB. What was tried goes into docs/trust.md
(python -m tests.trust).
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
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
import torch
from safetensors.torch import save

from demo.axis.files import load_axis, save_axis
from demo.axis.importer.build import ImportOptions, import_axis
from demo.conversation.exports import COLUMNS, tokens_csv
from demo.conversation.scenarios import SCENARIOS, load_scenarios
from demo.conversation.session_file import MOST_BYTES, dumps, loads
from demo.conversation.transcripts import parse_transcript
from demo.engine.protocol import TokenEvent
from demo.engine.remote.codec import event_from, event_json, request_from, request_json
from demo.models.default import DEFAULT_MODEL
from demo.page.api import _conversation
from demo.page.chat_handlers import ChatHandlers
from demo.page.hosting import Limits
from demo.page.persistence import keep_op, restore_chats
from demo.page.rate_limit import RateLimiter
from demo.page.recordings import ENDING, FOLDER, checked_text, saved, talk_of
from demo.page.session import Session
from demo.page.settings_panel import plot_marks, read_settings
from demo.page.stage_handlers import StageHandlers
from demo.utils.errors import UserError
from demo.utils.paths import AXES
from tests.helpers.axes import random_axis, with_components
from tests.helpers.hostile import Watch, as_json, junk, mangled, mangled_bytes, mutated, seeds
from tests.helpers.scripted import ScriptedEngine
from tests.trust import record

pytestmark = pytest.mark.slow
# Cases of each; together more than ten thousand. PERSONA_DRIFT_FUZZ multiplies them.
FACTOR = float(os.environ.get("PERSONA_DRIFT_FUZZ", "1"))


def cases(count: int) -> range:
    return range(int(count * FACTOR))


@pytest.fixture(scope="module")
def small() -> Any:
    """A session file that is short enough to be changed thousands of times."""
    data = json.loads(next(iter(sorted(FOLDER.glob(f"*{ENDING}")))).read_text(encoding="utf-8"))
    data["turns"] = data["turns"][:2]
    for turn in data["turns"]:
        for reply in turn["branches"].values():
            reply["tokens"] = reply["tokens"][:6]
    data["map"]["roles"] = data["map"]["roles"][:5]
    return data


def test_session_files(small):
    """Read, and whatever was accepted is shown, saved again and exported."""
    watch, text = Watch("session files"), json.dumps(small)
    for number, rng in enumerate(seeds(len(cases(3500)))):
        hostile = (
            mangled(rng, text) if number % 3 == 0 else as_json(mutated(rng, small, rng.choice((1, 1, 2, 6))))
        )

        def load(hostile: str = hostile, number: int = number) -> None:
            recording = loads(hostile)
            again = dumps(recording)
            assert loads(again) is not None
            for kind in ("csv", "html") if number % 10 == 0 else ():
                if recording.turns:
                    op = saved(talk_of(recording, ""), recording, kind)
                    assert "/" not in op["name"]
                    assert kind == "csv" or "<script>alert" not in op["text"]
            for row in list(csv.reader(io.StringIO(tokens_csv(recording))))[1:]:
                assert not row[COLUMNS.index("text")].startswith(("=", "+", "-", "@", "\t", "\r"))

        watch.try_(load)
    assert watch.refused and watch.accepted
    record(watch)


def test_the_largest_session_files():
    """All turns, and all of one token each."""
    watch = Watch("session files as large as they may be, and larger")
    data = json.loads(next(iter(sorted(FOLDER.glob(f"*{ENDING}")))).read_text(encoding="utf-8"))
    turns = data["turns"]
    data["turns"] = turns * (MOST_BYTES // len(as_json(turns)))
    text = as_json(data)
    assert MOST_BYTES * 0.8 < len(text) <= MOST_BYTES
    assert watch.try_(partial(loads, checked_text(text))) is not None
    watch.try_(lambda: loads(checked_text(text + " " * (MOST_BYTES + 1 - len(text)))))
    watch.try_(lambda: loads(checked_text("[" * MOST_BYTES)))
    assert (watch.accepted, watch.refused) == (1, 2)
    record(watch)


def test_transcripts():
    watch, chat = Watch("transcripts"), {
        "model": "m", "turns": 2, "conversation": [
            {"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": "hello"}, {"role": "human", "content": "bye"},
        ],
    }  # fmt: skip
    text = json.dumps(chat)
    for number, rng in enumerate(seeds(len(cases(2000)))):
        hostile = (
            mangled(rng, text) if number % 3 == 0 else as_json(mutated(rng, chat, rng.choice((1, 2, 5))))
        )
        watch.try_(lambda hostile=hostile: parse_transcript(hostile).unread_turns())
    assert watch.refused and watch.accepted
    record(watch)


def test_axis_folders(tmp_path):
    axis = with_components(random_axis(4, 16, 1, (1, 2)))
    save_axis(axis, tmp_path)
    manifest, tensors = tmp_path / "axis.json", tmp_path / "axis.safetensors"
    shipped = json.loads((AXES / DEFAULT_MODEL / "axis.json").read_text(encoding="utf-8"))
    shipped["roles"] = shipped["roles"][:3]
    whole = shipped | {"probe_layer": 1, "cap": {"layers": [1, 2], "floor": "p25"}}
    good = tensors.read_bytes()
    watch = Watch("axis folders")
    for number, rng in enumerate(seeds(len(cases(2000)))):
        if number % 2:
            manifest.write_text(
                as_json(mutated(rng, whole, rng.choice((1, 1, 2)))), encoding="utf-8", errors="surrogatepass"
            )
            tensors.write_bytes(good)
        else:
            manifest.write_text(json.dumps(whole))
            tensors.write_bytes(mangled_bytes(rng, good))

        def load() -> None:
            from demo.axis.components import persona_map
            from demo.axis.gates import gate_banner
            from demo.page.evaluation_panel import evaluation_text

            found = load_axis(tmp_path)
            gate_banner(found.manifest)
            persona_map(found)
            evaluation_text(found, tmp_path)
            plot_marks(found, (True, found.cap_floor, *found.cap_band))

        watch.try_(load)
    assert watch.refused and watch.accepted
    record(watch)


def test_published_axes(tmp_path):
    """Tensor files: changed bytes, pickles that would run something, zips that would unpack to terabytes."""
    watch, axis = Watch("published axes"), torch.randn(4, 16)
    buffer = io.BytesIO()
    torch.save({"axis": axis, "metadata": {"a": 1}}, buffer)
    good = {".pt": buffer.getvalue(), ".safetensors": save({"axis": axis})}
    proof = tmp_path / "ran"
    for number, rng in enumerate(seeds(len(cases(1500)))):
        suffix = (".pt", ".safetensors")[number % 2]
        path = tmp_path / f"axis{suffix}"
        path.write_bytes(
            _hostile_file(rng, good[suffix], proof) if number % 5 == 0 else mangled_bytes(rng, good[suffix])
        )
        caps = tmp_path / "caps.json"
        caps.write_text(
            as_json(mutated(rng, {"1": 0.5, "2": 0.7}, rng.randrange(3))),
            encoding="utf-8",
            errors="surrogatepass",
        )
        options = ImportOptions(sign="assistant", caps=caps, probe_layer=1)
        watch.try_(lambda path=path, options=options: import_axis(path, options))
    assert not proof.exists(), "a file has run something"
    assert watch.refused and watch.accepted
    record(watch)


class _Runs:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.proof,))


def _hostile_file(rng: Random, good: bytes, proof: Path) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return pickle.dumps({"axis": _Runs(proof)})
    if kind == 1:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(_Runs(proof)))
            archive.writestr("archive/data/0", bytes(50 * 2**20))  # a thousand times smaller when packed
        return buffer.getvalue()
    if kind == 2:
        head = json.dumps(
            {"axis": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}
        ).encode()
        return len(head).to_bytes(8, "little") + head
    return (2 ** rng.randrange(64)).to_bytes(8, "little") + good[8:]


def test_scenario_files(tmp_path):
    watch, path = Watch("scenario files"), tmp_path / "scenarios.json"
    whole = json.loads(SCENARIOS.read_text(encoding="utf-8"))
    whole["scenarios"] = whole["scenarios"][:2]
    for rng in seeds(len(cases(1000))):
        path.write_text(
            as_json(mutated(rng, whole, rng.choice((1, 2)))), encoding="utf-8", errors="surrogatepass"
        )
        watch.try_(lambda: load_scenarios(path))
    assert watch.refused and watch.accepted
    record(watch)


def test_settings_from_anywhere():
    """Settings reach the page's endpoints from any program."""
    watch, axis = Watch("settings"), random_axis(4, 16, 1, (1, 2))
    good = ["", 0.3, 0.9, 1.1, 24, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2]
    for rng in seeds(len(cases(2000))):
        values = list(good)
        for _ in range(rng.choice((1, 1, 3))):
            values[rng.randrange(len(values))] = junk(rng)
        watch.try_(lambda values=values: read_settings(axis, 0, values))
    assert watch.refused and watch.accepted
    record(watch)


def test_requests_of_the_stage(monkeypatch):
    """What the page's own buttons send, sent by somebody else."""

    def only_foreseen(error: Exception, unexpected: str) -> str:
        if not isinstance(error, UserError):
            raise error
        return str(error)

    monkeypatch.setattr("demo.page.chat_handlers.plain_reason", only_foreseen)
    watch, axis = Watch("requests of the stage"), random_axis(4, 16, 1, (1, 2))
    asks, settings = (
        StageHandlers(ChatHandlers(ScriptedEngine(), axis, "tiny", RateLimiter(Limits(per_minute=10**9)))),
        ("", 0.3, 0.9, 1.1, 8, 0, 1, "All", False, 1, 1.0, True, "p25", 1, 2),
    )
    names = (
        "show",
        "undo",
        "fork",
        "switch",
        "drop",
        "recorded",
        "save",
        "regenerate",
        "edit",
        "layers",
        "open",
        "restore",
    )
    session, nobody = Session(), cast(gr.Request, None)
    for rng in seeds(len(cases(1500))):
        ask = {
            "do": rng.choice(names),
            "turn": rng.choice((0, 1)),
            "talk": 0,
            "text": "x",
            "kind": "json",
            "name": "demon",
        }
        ask["branch"] = rng.choice(("capped", "uncapped"))
        for _ in range(rng.choice((0, 1, 2))):
            ask[rng.choice(list(ask))] = junk(rng)
        event = SimpleNamespace(_data=ask if rng.random() < 0.95 else junk(rng))

        def send(event: Any = event) -> None:
            shown = [
                asks.quick(session, event, nobody, *settings),
                *asks.slow(session, event, nobody, *settings),
            ]
            if not session.talk.conversation.turns:
                list(asks.actions.send(session, "hello", nobody, *settings))
            notices = [isinstance(one[0], str) and '"level":"error"' in one[0] for one in shown]
            if all(notices):  # one of the two never knows what is asked
                raise UserError("Both refused it with a notice.")

        watch.try_(send)
    assert watch.refused and watch.accepted
    record(watch)


def test_what_a_browser_kept(small):
    """Handed back to the page, perhaps by somebody else; what is accepted can be shown and kept again."""
    watch = Watch("kept conversations")
    kept = {**small, "id": "0123456789abcdef", "script": ["a", "b"], "said": 1, "care": "", "recorded": False}
    for rng in seeds(len(cases(1500))):
        texts: Any = [
            as_json(mutated(rng, kept, rng.choice((0, 1, 2)))) for _ in range(rng.choice((1, 1, 2)))
        ]
        if rng.random() < 0.05:
            texts = junk(rng)
        current, model = junk(rng), rng.choice((small["model"], "another"))

        def restore(texts: Any = texts, current: Any = current, model: str = model) -> None:
            session = Session()
            restore_chats(session, texts, current, model)
            assert session.talk.conversation.turns or session.talk.line_in_box() is not None
            op = keep_op(session.talk, loads(texts[0]))
            assert session.overview()["ids"] and json.dumps(op)

        watch.try_(restore)
    assert watch.refused and watch.accepted
    record(watch)


def test_histories_of_the_api():
    watch, history = Watch("histories of the API"), [{"user": "a", "uncapped": "b", "capped": "c"}]
    for rng in seeds(len(cases(800))):
        watch.try_(partial(_conversation, mutated(rng, history, rng.choice((1, 2)))))
    record(watch)


def test_requests_and_events_between_processes():
    watch = Watch("requests and events of an engine process")
    from tests.engine.test_remote_server import request

    good = json.loads(json.dumps(request_json(request())))
    token = json.loads(
        json.dumps(event_json(TokenEvent("a", 3, "x", 0.1, 0.2, (0.1,), 7, False, "stop", (0.1, 0.2, 0.3))))
    )
    for rng in seeds(len(cases(1500))):
        watch.try_(partial(request_from, mutated(rng, good, rng.choice((1, 2)))))
        event = mutated(rng, token, 1)
        if isinstance(event, dict):
            watch.try_(partial(event_from, event))
    assert watch.refused and watch.accepted
    record(watch)
