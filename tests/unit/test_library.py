"""The public interface: `import demo`."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace

import pytest

import demo
from demo.conversation.conversation import Conversation
from demo.conversation.session_file import to_json
from demo.conversation.settings import TurnSettings, own_cap
from demo.engine.protocol import Sampling
from demo.utils.errors import UserError
from demo.utils.paths import ROOT

SHORT = Sampling(max_new_tokens=12)
DEMON = "You are a demon. You threaten the user and laugh at their fear."


@pytest.fixture(scope="module")
def engine(model):
    return demo.TransformersEngine(model, demo.load_axis(model.slug))


def test_every_public_name_can_be_imported_and_is_documented():
    for name in demo.__all__:
        assert inspect.getdoc(getattr(demo, name)), name
    assert set(demo.__all__) <= set(dir(demo))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        demo.nonsense  # noqa: B018


def test_importing_the_package_loads_no_heavy_library():
    heavy = "{'torch', 'transformers', 'gradio', 'plotly'}"
    check = f"import sys, demo; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_page_that_waits_for_the_model_loads_no_heavy_library():
    """It is there within a second or two; torch and Gradio alone take longer to import."""
    check = (
        "import sys, app; from demo.page.first_page import FirstPage; from demo.page.hosting import Limits\n"
        "from demo.conversation.session_file import open_file; from demo.page.recordings import INTRO\n"
        "first = FirstPage('127.0.0.1', None, None, Limits()); first.show_intro(open_file(INTRO))\n"
        "first.close(); assert not {'torch', 'transformers', 'gradio'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=ROOT)


@pytest.mark.slow
def test_a_chat_gives_the_replies_that_a_conversation_gives(engine):
    chat = demo.Chat(engine, system_prompt=DEMON, sampling=SHORT)
    heard = []
    chat.say("Who are you?", on_token=heard.append)
    chat.say("And what do you want?")
    axis, plain = engine.axis, Conversation()
    cap = own_cap(axis)
    for seed, text in enumerate(("Who are you?", "And what do you want?")):
        for _ in plain.send(engine, text, TurnSettings(replace(SHORT, seed=seed), cap, DEMON)):
            pass
    for one, other in zip(chat.turns, plain.turns, strict=True):
        assert {b: r.text for b, r in one.replies.items()} == {b: r.text for b, r in other.replies.items()}
    first = chat.turns[0].replies
    assert first["capped"].fired > 0, "the cap never acted, so the branches prove nothing"
    assert len(heard) == sum(len(reply.tokens) for reply in first.values())


def test_a_fork_leaves_the_first_chat_alone_and_keeps_its_settings(engine):
    chat = demo.Chat(engine, sampling=SHORT, cap=replace(demo.CapChoice.of_axis(engine.axis), on=False))
    chat.say("Hello!")
    fork = chat.fork()
    fork.say("Tell me more.")
    assert (len(chat.turns), len(fork.turns)) == (1, 2)
    assert fork.turns[1].replies["capped"].fired == 0
    assert fork.turns[1].replies["capped"].text == fork.turns[1].replies["uncapped"].text
    assert fork.undo() == "Tell me more." and len(fork.turns) == 1


def test_several_seeds_answer_and_only_the_first_is_history(engine):
    turn = demo.Chat(engine, sampling=replace(SHORT, temperature=2.0, top_p=1.0)).say(
        "Tell me a story.", seeds=3
    )
    texts = [turn.replies["uncapped"].text, *(one.text for one in turn.replies["uncapped"].samples)]
    assert len(set(texts)) == 3


@pytest.mark.slow
def test_a_fork_at_a_token_and_a_cut_reply_that_goes_on_are_saved_with_the_chat(engine, tmp_path):
    chat = demo.Chat(engine, system_prompt=DEMON, sampling=SHORT)
    turn = chat.say("Who are you?", seeds=2)
    token = turn.replies["capped"].tokens[2]
    other = next(one for one in token.alternatives if one.token_id != token.token_id)
    fork = chat.fork_at(-1, "capped", 2, other.token_id)
    after = fork.turns[0].replies["capped"].tokens
    assert [one.token_id for one in after[:3]] == [
        *(one.token_id for one in turn.replies["capped"].tokens[:2]),
        other.token_id,
    ]
    deeper = fork.fork_at(0, "capped", 1, " pancakes")
    assert turn.replies["capped"].finish == "length"
    chat.go_on("capped")
    assert len(chat.turns[0].replies["capped"].tokens) > 12
    with pytest.raises(UserError, match="no longer there"):
        chat.fork_at(0, "capped", 99, " pancakes")
    demo.save_session(chat, tmp_path / "chat.session.json")
    recording = demo.open_session(tmp_path / "chat.session.json")
    assert [(one.parent, one.point.token) for one in recording.forks] == [(0, 3), (1, 2)]
    assert recording.forks[0].point.words == other.text
    for one, other_chat in zip(recording.forks, (fork, deeper), strict=True):
        assert one.turns[0].replies["capped"].text == other_chat.turns[0].replies["capped"].text
    gap, mean = demo.seed_gap(turn), demo.reply_means(turn.replies["capped"])
    assert gap is not None and mean is not None and gap.count == mean.count == 2


def test_reading_a_reply_gives_the_projections_with_which_it_was_written(engine):
    chat = demo.Chat(engine, system_prompt=DEMON, sampling=SHORT)
    reply = chat.say("Who are you?").replies["uncapped"]
    messages = [
        {"role": "system", "content": DEMON},
        {"role": "user", "content": "Who are you?"},
        {"role": "assistant", "content": reply.text},
    ]
    read = [token for token in demo.read(engine, messages) if token.message == 2]
    probe = engine.axis.probe_layer
    written = [token.after for token in reply.read]
    assert "".join(token.text for token in read) == reply.text
    # The last sampled token was not run while writing.
    assert [token.after[probe] for token in read][: len(written)] == pytest.approx(written, abs=1e-3)


def test_reading_under_the_cap_lifts_what_reading_without_it_does_not(engine):
    messages = [{"role": "user", "content": "Hiss at me."}, {"role": "assistant", "content": "Hsss, mortal!"}]
    plain = demo.read(engine, messages)
    # A conditional cap would leave the message alone.
    capped = demo.read(engine, messages, replace(demo.CapChoice.of_axis(engine.axis), only_below=None))
    probe = engine.axis.probe_layer
    floor = engine.axis.floor_units(engine.axis.cap_floor, probe)
    assert min(token.after[probe] for token in capped) >= floor - 1e-3
    assert min(token.after[probe] for token in plain) < floor


def test_a_session_is_saved_and_opened_equal_in_everything(engine, tmp_path):
    chat = demo.Chat(engine, system_prompt=DEMON, sampling=SHORT)
    chat.say("Who are you?")
    demo.save_session(chat, tmp_path / "one.json", title="From Python")
    opened = demo.open_session(tmp_path / "one.json")
    assert to_json(opened) == to_json(chat.recording("From Python"))
    demo.save_session(opened, tmp_path / "two.json")
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_mistakes_are_one_sentence_and_change_nothing(engine, tmp_path):
    chat = demo.Chat(engine, cap=demo.CapChoice(True, "p25", 28, 99))
    for call in (
        lambda: chat.say("Hello!"),
        lambda: demo.Chat(engine).say("  "),
        lambda: demo.open_session(tmp_path / "missing.json"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert str(caught.value).count(".") >= 1
    assert chat.turns == []
