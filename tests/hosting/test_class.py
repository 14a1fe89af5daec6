"""A class over the network: what students and the speaker may do, and what hostile clients may not."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from secrets import token_urlsafe
from typing import Any

import httpx
import pytest

from demo.bench.app_process import free_port
from demo.page.classroom.classroom import MOST_STREAMS
from demo.page.classroom.routes import MOST_SESSION, MOST_SMALL
from demo.page.classroom.talk import MOST_MESSAGE
from demo.page.rate_limit import MOST_LOGINS
from tests.helpers.classes import DifferingEngine, Hosted, Phone, hosted_class
from tests.helpers.hosted import hosted
from tests.helpers.hostile import TEXTS
from tests.helpers.waiting import wait_until
from tests.trust import held

pytestmark = pytest.mark.slow
GROUP = "class"
SECRET = "xyzzy-nobody-else-may-read-this"
SPEAKER_DOES: tuple[dict[str, Any], ...] = (
    {"do": "pause", "paused": True},
    {"do": "clear"},
    {"do": "code"},
    {"do": "lesson", "system_prompt": "obey"},
    {"do": "allow", "exhibit": 1},
    {"do": "refuse", "exhibit": 1},
    {"do": "remove", "student": 1},
    {"do": "room", "room": 1},
    {"do": "unfollow"},
    {"do": "restore", "class": "a" * 12, "code": "AAAAA", "lesson": {}, "rows": []},
)


@pytest.fixture
def engine() -> DifferingEngine:
    return DifferingEngine()


def test_two_students_talk_guess_and_show_and_the_board_has_their_numbers(engine):
    with hosted_class(engine) as there, Phone(there.address) as one, Phone(there.address) as two:
        speaker = Phone(there.address, there.secret)
        assert one.join(there.code).is_success and two.join(there.code).is_success
        blind = one.say(SECRET)
        assert blind["asks"] and not blind["revealed"] and "data" not in blind
        two.say("the same for both")
        assert one.post("show", turn=0).status_code == 400, "it guesses first"
        assert one.post("guess", turn=0, pane="a").is_success
        view = one.until("turn")["view"]
        assert view["verdict"] in ("right", "wrong") and view["data"]["user"] == SECRET
        same = two.until("turn")["view"]
        assert same["same"] and same["revealed"] and same["verdict"] is None
        board = speaker.board()
        assert [(row["student"], len(row["pairs"])) for row in board["rows"]] == [(1, 1), (2, 1)]
        numbers = board["rows"][0]["pairs"][0]
        assert numbers["lift"] == pytest.approx(numbers["capped"] - numbers["uncapped"], abs=1e-4)
        assert SECRET not in json.dumps(board)
        assert one.post("show", turn=0).is_success
        assert SECRET not in json.dumps(speaker.board())
        exhibit = speaker.board()["shown"][0]["id"]
        assert speaker.post("speaker", do="allow", exhibit=exhibit).is_success
        assert speaker.board()["shown"][0]["user"] == SECRET
        assert speaker.post("speaker", do="refuse", exhibit=exhibit).is_success
        assert SECRET not in json.dumps(speaker.board())
        assert one.until("turn")["view"]["shown"] == "refused"


def test_the_second_message_has_the_first_in_its_history_and_the_next_seed(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        speaker = Phone(there.address, there.secret)
        lesson = {"scenario": "", "system_prompt": "Be brief.", "cap": True, "seed": 5, "own_seeds": False}
        assert speaker.post("speaker", do="lesson", **lesson).is_success
        phone.join(there.code)
        phone.say("one")
        phone.say("two")
        requests = {request.branch.rpartition("/")[2]: request for request in engine.requests}
        roles = [message["role"] for message in requests["capped"].messages]
        assert roles == ["system", "user", "assistant", "user"]
        assert requests["capped"].cap is not None and requests["uncapped"].cap is None
        assert requests["capped"].sampling.seed == 6
        phone.post("again")
        phone.say("three")
        assert len(engine.requests[0].messages) == 2
        wait_until(lambda: len(engine.forgotten) >= 2)  # the conversation before leaves the engine's cache


def test_a_pause_holds_messages_back_and_a_stop_ends_the_replies(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        speaker = Phone(there.address, there.secret)
        phone.join(there.code)
        assert speaker.post("speaker", do="pause", paused=True).is_success
        refused = phone.post("say", text="Hello")
        assert refused.status_code == 400 and "paused" in refused.json()["detail"]
        assert phone.until("state")["paused"]
        speaker.post("speaker", do="pause", paused=False)
        engine.go.clear()
        assert phone.post("say", text="a long story").is_success
        assert "still being written" in phone.post("say", text="again").json()["detail"]
        assert phone.post("stop").is_success
        assert there.pages.classroom is not None
        student = there.pages.classroom.student(phone.token)
        assert student is not None and student.conversation.stopped
        engine.go.set()
        phone.until("state", lambda state: not state["writing"])


def test_one_student_s_failure_leaves_the_others_alone(engine):
    with hosted_class(engine) as there, Phone(there.address) as one, Phone(there.address) as two:
        one.join(there.code), two.join(there.code)
        two.say("Hello")
        engine.fail_after = 1
        assert one.post("say", text=SECRET).is_success
        problem = one.until("state", lambda state: state["problem"])["problem"]
        assert problem["message"] == SECRET and "not enough memory" in problem["text"]
        engine.fail_after = None
        assert two.until("state")["problem"] is None
        two.say("and on")
        one.say("once more")
        engine.refuse = True
        assert one.post("say", text="no").json()["detail"] == "No."
        assert not one.until("state")["writing"]


def test_those_beyond_the_room_wait_and_learn_their_place(engine):
    with hosted_class(engine, room=1) as there, Phone(there.address) as one, Phone(there.address) as two:
        one.join(there.code), two.join(there.code)
        assert one.until("state")["place"] == 0 and two.until("state")["place"] == 1
        assert "waiting for a place" in two.post("say", text="Hello").json()["detail"]
        speaker = Phone(there.address, there.secret)
        assert speaker.post("speaker", do="room", room=2).is_success
        assert two.until("state")["place"] == 0
        two.say("Hello")


def test_phones_follow_the_speaker_s_stage(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        speaker = Phone(there.address, there.secret)
        phone.join(there.code)
        assert not phone.until("state")["mirrored"]
        again = speaker.post("mirror", ops=[{"op": "tokens", "turn": 0}], view={})
        assert again.json() == {"again": True}
        reset = {"op": "reset", "meta": {"model": "m"}, "turns": []}
        assert speaker.post("mirror", ops=[reset], view={"panel": "map"}).json() == {"again": False}
        told = phone.until("mirror", path="follow")
        assert told["ops"][0]["op"] == "reset" and told["view"] == {"panel": "map"}
        assert phone.until("state")["mirrored"]
        assert speaker.post("speaker", do="unfollow").is_success
        assert phone.until("mirror", path="follow")["ops"] == [] and not phone.until("state")["mirrored"]


def test_a_reload_of_the_speaker_and_of_a_student_loses_nothing(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        phone.join(there.code)
        phone.say(SECRET)
        with Phone(there.address) as again:
            assert again.join("wrong", token=phone.token).is_success, "the token alone leads back"
            assert again.until("turn")["view"]["user"] == SECRET
        before = Phone(there.address, there.secret).board()
        assert Phone(there.address, there.secret).board() == before


def test_a_restarted_server_brings_the_class_back(engine):
    port = free_port()
    with hosted_class(engine, port=port) as there, Phone(there.address) as phone:
        code, head = there.code, phone.join(there.code).json()["head"]
        phone.say(SECRET)
        phone.post("guess", turn=0, pane="b")
        view = phone.until("turn")["view"]
        speaker = Phone(there.address, there.secret)
        stored = speaker.board()
    with hosted_class(DifferingEngine(), port=port) as there, Phone(there.address, phone.token) as back:
        assert there.code != code and back.post("say", text="a").status_code == 401
        assert not back.hello(stored["id"])["same"]
        speaker = Phone(there.address, there.secret)
        fields = {"class": stored["id"], "code": code, "lesson": stored["lesson"], "rows": stored["rows"]}
        assert speaker.post("speaker", do="restore", paused=False, **fields).is_success
        assert back.hello(stored["id"])["same"]
        assert speaker.board()["rows"] == stored["rows"]
        session = head | {"turns": [view["data"]]}
        joined = back.join(
            code, token=phone.token, session=session, guesses=[view["verdict"]], scenarios=[""], taken=[False]
        )
        assert joined.is_success and not joined.json()["problem"], joined.text
        assert back.until("turn")["view"]["user"] == SECRET
        assert speaker.board()["rows"] == stored["rows"]
        back.say("and on")
        assert len(speaker.board()["rows"][0]["pairs"]) == 2


# --- hostile clients


def test_a_student_reaches_neither_another_s_text_nor_the_speaker_s_controls(engine):
    with hosted_class(engine) as there, Phone(there.address) as mine, Phone(there.address) as other:
        speaker = Phone(there.address, there.secret)
        mine.join(there.code), other.join(there.code)
        mine.say(SECRET)
        mine.post("guess", turn=0, pane="a")
        mine.post("show", turn=0)
        seen: list[str] = []
        attempts = 0
        for token in (other.token, "", there.code, mine.token[:-1], "a" * 43, other.token * 99):
            attacker = Phone(there.address, token)
            for fields in SPEAKER_DOES:
                answer = attacker.post("speaker", **fields)
                assert answer.status_code == 401, fields
                seen.append(answer.text)
            for path in ("results.csv", "results.json", "board/events"):
                answer = attacker.get(path)
                assert answer.status_code == 401
                seen.append(answer.text)
            assert (
                attacker.post("mirror", ops=[{"op": "reset", "meta": {}, "turns": []}], view={}).status_code
                == 401
            )
            attempts += len(SPEAKER_DOES) + 4
        for turn in (0, 1, -1, 10**9, True, "0", None):
            for path in ("guess", "show", "withdraw"):
                answer = other.post(path, turn=turn, pane="a", student=1, token=mine.token)
                assert answer.status_code == 400
                seen.append(answer.text)
                attempts += 1
        for path in ("events", "follow"):
            stream = other.messages(path)
            seen.append(json.dumps(next(stream)))
            stream.close()
        for path in ("", "board", "stage", "hello"):
            seen.append(other.get(path).text)
        for path in ("../config", "%2e%2e/config", "nothing", "events/1", "join"):
            seen.append(other.get(path).text)
            attempts += 1
        assert SECRET not in str(seen) and there.secret not in str(seen) and mine.token not in str(seen)
        board = speaker.board()
        assert not board["paused"] and board["code"] == there.code and len(board["students"]) == 2
        assert board["lesson"]["system_prompt"] == "" and not board["shown"][0]["shown"]
        assert mine.until("turn")["view"]["user"] == SECRET
    held(
        "attempts of a student to reach another's text or the speaker's controls", attempts, "refused", GROUP
    )


def test_wrong_codes_are_limited_and_a_whole_school_behind_one_address_joins(engine):
    with hosted_class(engine) as there, Phone(there.address) as known, Phone(there.address) as guesser:
        known.join(there.code)
        answers = [guesser.join(f"AAAA{number}").status_code for number in range(MOST_LOGINS)]
        assert set(answers) == {400}
        late = guesser.join("AAAAA")
        assert late.status_code == 429 and late.headers["retry-after"] == "60"
        assert guesser.join(there.code).status_code == 429, "or it would tell a right code"
        assert guesser.join("AAAAA", token=known.token).is_success, "whoever is in the class stays in it"
    with hosted_class(engine) as there:

        def joins(number: int) -> int:
            with Phone(there.address) as phone:
                if number % 2:
                    assert phone.join("wrong").status_code == 400  # a slip of the finger
                return phone.join(there.code.lower()).status_code

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(joins, range(60))) == [200] * 60
    held("wrong codes from one address within a minute", MOST_LOGINS, "then none is answered", GROUP)


def test_tokens_cannot_be_guessed_or_chosen_to_take_another_s_place(engine):
    with hosted_class(engine) as there, Phone(there.address) as mine:
        mine.join(there.code)
        mine.say(SECRET)
        for token in (token_urlsafe(32), mine.token[:-1] + ("A" if mine.token[-1] != "A" else "B")):
            with Phone(there.address) as other:
                assert other.join(there.code, token=token).is_success
                assert other.until("state")["student"] != 1
        for token in TEXTS:
            with Phone(there.address) as other:
                if token:
                    assert other.post("join", code=there.code, token=token).status_code == 400
                assert other.post("join", code=there.code, token=[token]).status_code == 400
                assert other.post("join", code=token).status_code == 400


def test_malformed_and_oversized_requests_are_refused_in_one_sentence(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        phone.join(there.code)
        cases = 0
        for value in (None, 3, [], {}, "", "  ", "a" * (MOST_MESSAGE + 1)):
            answer = phone.post("say", text=value)
            assert answer.status_code == 400 and answer.json()["detail"].endswith("."), value
            cases += 1
        headers = {"X-Class-Token": phone.token}
        bodies = [b"", b"[]", b"{", b'"a"', b"[" * 9000, b"{" + b" " * MOST_SMALL + b"}"]
        for body in bodies:
            for path in ("say", "guess", "show", "stop", "again"):
                typed = headers | {"Content-Type": "application/json"}
                answer = phone.http.post(f"class/{path}", content=body, headers=typed)
                assert answer.status_code == 400 and answer.json()["detail"], (path, body[:20])
                untyped = phone.http.post(f"class/{path}", content=body, headers=headers)
                assert untyped.status_code == 400
                cases += 2
        large = phone.http.post(
            "class/join",
            content=b'{"code": "' + b"A" * (MOST_SESSION + 1) + b'"}',
            headers={"Content-Type": "application/json"},
        )
        assert large.status_code == 400 and "KiB" in large.json()["detail"]
        for session in ({}, [], 3, {"format": "persona-drift-session", "version": 1}, "a"):
            with Phone(there.address) as other:
                answer = other.join(there.code, session=session, guesses=[], scenarios=[])
                assert answer.json()["problem"].endswith("."), session
                assert other.until("state")["turns"] == 0, "it is in the class all the same"
            cases += 1
        speaker = Phone(there.address, there.secret)
        for fields in (
            {},
            {"do": "evil"},
            {"do": ["pause"]},
            {"do": "remove"},
            {"do": "allow", "exhibit": True},
        ):
            assert speaker.post("speaker", **fields).status_code == 400
            cases += 1
        phone.say("Hello")
    held("malformed and oversized requests of a class", cases + 1, "refused in one sentence", GROUP)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
def test_another_site_s_page_may_do_nothing(engine, headers: dict[str, str]):
    with hosted_class(engine) as there, Phone(there.address, headers=headers) as phone:
        assert phone.join(there.code).status_code == 403
        assert phone.post("start").status_code == 403
        assert phone.get("hello").status_code == 403
        phone.token = there.secret
        assert phone.post("speaker", do="clear").status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "192.168.1.5:7860"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"X-Real-IP": "127.0.0.1"},
    ],
)
def test_only_this_machine_opens_a_class_and_not_through_a_proxy(engine, headers: dict[str, str]):
    with hosted_class(engine, opened=False) as there, Phone(there.address, headers=headers) as phone:
        assert phone.post("start").status_code == 403 and there.pages.classroom is None


def test_whoever_started_the_program_opens_a_class_on_the_page(engine):
    with hosted_class(engine, opened=False) as there, Phone(there.address) as phone:
        assert phone.get("hello").json() == {"open": False, "same": False}
        assert phone.join("AAAAA").status_code == 404
        secret = phone.post("start").json()["secret"]
        assert secret == there.secret == phone.post("start").json()["secret"]
        assert Phone(there.address, secret).board()["code"] == there.code
    with hosted_class(engine, opened=False, may_start=False) as there, Phone(there.address) as phone:
        assert phone.post("start").status_code == 403


def test_the_pages_are_served_under_the_policy_and_hold_nothing(engine):
    with hosted_class(engine) as there, httpx.Client(base_url=there.address, trust_env=False) as http:
        for path in ("class", "class/board", "class/stage"):
            answer = http.get(path)
            assert answer.is_success and "default-src 'self'" in answer.headers["content-security-policy"]
            assert there.code not in answer.text and there.secret not in answer.text
            assert answer.headers["cache-control"] == "no-store" and not answer.cookies


def test_a_page_without_class_mode_has_no_such_endpoint(engine):
    with hosted(engine) as address, httpx.Client(base_url=address, trust_env=False) as http:
        assert http.get("class").status_code == 404 and http.post("class/join", json={}).status_code == 404


def test_nothing_of_a_class_is_logged(engine, capfd, caplog):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        phone.join(there.code)
        phone.say(SECRET)
        engine.fail_after = 1
        phone.post("say", text=f"fail {SECRET}")
        phone.until("state", lambda state: state["problem"])
        phone.post("join", code=SECRET)
        code, secret = there.code, there.secret
    out, err = capfd.readouterr()
    written = out + err + caplog.text
    assert (
        SECRET not in written and phone.token not in written and secret not in written and code not in written
    )
    held("texts, tokens and codes of a class", 4, "in no log", GROUP)


def test_a_student_who_is_sent_away_is_told_and_can_do_nothing_more(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        phone.join(there.code)
        stream = phone.messages()
        assert next(stream)["type"] == "state"
        speaker: Hosted | Phone = Phone(there.address, there.secret)
        assert isinstance(speaker, Phone) and speaker.post("speaker", do="remove", student=1).is_success
        assert list(stream)[-1]["type"] == "gone"
        assert phone.post("say", text="Hello").status_code == 410
        assert phone.join(there.code, token=phone.token).status_code == 410
        phone.token = ""
        assert phone.join(there.code).is_success, "the code leads in again, as somebody new"


def test_a_student_opens_only_so_many_streams(engine):
    with hosted_class(engine) as there, ExitStack() as tabs:
        phone = tabs.enter_context(Phone(there.address))
        phone.join(there.code)
        tab_list = [tabs.enter_context(Phone(there.address, phone.token)) for _ in range(MOST_STREAMS)]
        streams = [tab.messages() for tab in tab_list]
        assert all(next(stream)["type"] == "state" for stream in streams)
        answer = phone.get("events")
        assert answer.status_code == 400 and "too many tabs" in answer.json()["detail"]
        for stream in streams:
            stream.close()


def test_what_a_tab_gives_back_holds_no_formula_for_the_speaker_s_spreadsheet(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        head = phone.join(there.code).json()["head"]
        phone.say("the same")
        session = head | {"turns": [phone.until("turn")["view"]["data"]]}
        evil, token = ["=HYPERLINK(1)"], phone.token
    with hosted_class(engine) as there, Phone(there.address) as phone:
        assert there.pages.classroom is not None
        there.pages.classroom._is_back = True
        speaker = Phone(there.address, there.secret)
        given = {"session": session, "guesses": ["right"], "scenarios": evil, "taken": [False]}
        assert phone.join(there.code, token=token, **given).json()["problem"] == ""
        assert "=" not in speaker.get("results.csv").text
        rows = speaker.board()["rows"]
        rows[0]["pairs"][0]["scenario"] = evil[0]
        fields = {"class": "a" * 12, "code": "AAAAA", "lesson": {}, "rows": rows}
        assert "damaged" in speaker.post("speaker", do="restore", **fields).json()["detail"]


def test_a_closed_tab_is_noticed(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        phone.join(there.code)
        assert there.pages.classroom is not None
        student = there.pages.classroom.student(phone.token)
        assert student is not None
        stream = phone.messages()
        next(stream)
        assert student.streams == 1
        stream.close()
        wait_until(lambda: student.streams == 0)


def test_what_a_tab_gives_back_cannot_break_the_board(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        head = phone.join(there.code).json()["head"]
        phone.say("the same")
        data, token = phone.until("turn")["view"]["data"], phone.token
    text = json.dumps(head | {"turns": [data]})
    token_before = json.dumps(data["branches"]["capped"]["tokens"][0])
    evil = [
        text.replace('"the same"', '"\\ud800"'),
        text.replace('"seed": ', '"seed": 9999999999999999999'),
        *(
            text.replace(token_before, token_before.replace('"a":', f'"a": {value}, "_": '))
            for value in ("1e308", "1e9", "-1e9")
        ),
    ]
    assert all(one != text for one in evil)
    with hosted_class(engine) as there:
        assert there.pages.classroom is not None
        there.pages.classroom._is_back = True
        speaker = Phone(there.address, there.secret)
        for one in evil:
            with Phone(there.address) as phone:
                body = f'{{"code": "{there.code}", "session": {one}, "guesses": [""], "scenarios": [""]}}'
                answer = phone.http.post(
                    "class/join", content=body.encode(), headers={"Content-Type": "application/json"}
                )
                assert answer.status_code == 400 or answer.json()["problem"], one
        assert speaker.board()["rows"] == [] and speaker.get("results.json").is_success
        assert token
    held("conversations with values that no model gives", len(evil), "not taken into the class", GROUP)


def test_a_phone_that_does_not_read_holds_nobody_up(engine):
    """Its stream fills the connection's buffers, and the others are answered all the same."""
    with hosted_class(engine) as there, Phone(there.address) as slow, Phone(there.address) as other:
        slow.join(there.code), other.join(there.code)
        engine.words = [f" {'word' * 500}"] * 1500  # megabytes, more than the connection takes unread
        for number in range(2):
            slow.say(f"a long story {number}")
        engine.words = [" Hello"]
        port = int(there.address.rstrip("/").rpartition(":")[2])
        request = f"GET /class/events HTTP/1.1\r\nHost: localhost\r\nX-Class-Token: {slow.token}\r\n\r\n"
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(request.encode())
            time.sleep(1)  # the server has written until it may not write more
            began = time.monotonic()
            other.say("Hello")
            assert time.monotonic() - began < 10


def test_the_same_message_sent_again_is_answered_once(engine):
    with hosted_class(engine) as there, Phone(there.address) as phone:
        phone.join(there.code)
        assert phone.post("say", text="Hello", id="one").is_success
        phone.until("turn", lambda one: one["view"]["ended"])
        assert phone.post("say", text="Hello", id="one").is_success
        assert phone.until("state", lambda one: not one["writing"])["turns"] == 1
        assert phone.post("say", text="Hello", id=7).status_code == 400


def test_the_library_of_the_charts_is_sent_packed_and_kept(engine):
    with hosted_class(engine) as there, httpx.Client(base_url=there.address, trust_env=False) as http:
        plain = http.get("class/plotly.min.js", headers={"Accept-Encoding": "identity"})
        packed = http.get("class/plotly.min.js", headers={"Accept-Encoding": "gzip"})
        assert packed.content == plain.content and packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < len(plain.content) / 2
        assert "immutable" in plain.headers["cache-control"]
