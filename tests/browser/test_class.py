"""A class in Chromium: phones and the board of one running program."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, Route, expect

from demo.bench.app_process import free_port
from tests.helpers.browser import TURN_TIMEOUT, Watched, chromium_page, running_app, say, wait_until_loaded
from tests.helpers.classes import DifferingEngine, Hosted, Phone, hosted_class
from tests.trust import held

pytestmark = pytest.mark.slow
PHONE, PROJECTOR = (390, 844), (1280, 720)
SECRET = "a text that nobody else sees"


@contextmanager
def opened(address: str, path: str, size: tuple[int, int] = PHONE, dark: bool = False) -> Iterator[Page]:
    """A page of the class in a tab of its own, which must neither reach elsewhere nor report an error."""
    with chromium_page(address, *size, touch=size == PHONE, stage=False) as (page, watched):
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.goto(address + path)
        yield page
        check(watched)


def check(watched: Watched) -> None:
    assert watched.outside == []
    # What the browser itself reports of a server that is restarted, or of a request that is refused.
    assert [text for text in watched.errors if not text.startswith("Failed to load resource")] == []


@pytest.fixture
def engine() -> DifferingEngine:
    return DifferingEngine()


@pytest.fixture
def there(engine: DifferingEngine) -> Iterator[Hosted]:
    with hosted_class(engine) as hosted:
        yield hosted


def board_of(there: Hosted) -> str:
    return f"class/board#{there.secret}"


def write(phone: Page, text: str) -> None:
    phone.locator(".say textarea").fill(text)
    phone.locator(".send").click()


def token_of(phone: Page) -> str:
    return str(phone.evaluate("JSON.parse(sessionStorage['persona-drift-class-student']).token"))


def guess(phone: Page, pane: str) -> None:
    phone.locator(f'.guess [data-pane="{pane}"]').click(timeout=TURN_TIMEOUT)
    expect(phone.locator(".answer")).not_to_be_empty()


def answered(phone: Page) -> None:
    """Wait for the end of a turn of the default model, and guess, unless both replies are the same."""
    phone.wait_for_function(
        "['.guess', '.answer'].some((name) => document.querySelector(name).checkVisibility())",
        timeout=TURN_TIMEOUT,
    )
    if phone.locator(".guess").is_visible():
        assert not phone.locator(".line").is_visible()
        assert phone.locator("#pane-a .low, #pane-a .high").count() == 0
        guess(phone, "a")
    expect(phone.locator(".line")).to_be_visible()


def no_violations(page: Page, what: str) -> None:
    found = Axe().run(page)
    assert [(what, v["id"], v["nodes"][0]["html"][:160]) for v in found.response["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what


# An iPhone: the keyboard leaves the layout as it is, and the page has scrolled under it.
IPHONE = """
  const screen = Object.assign(new EventTarget(), { height: 844, offsetTop: 0, scale: 1 });
  Object.defineProperty(window, "visualViewport", { value: screen });
  CSS.supports = () => false;
"""


def finger_sized(page: Page) -> None:
    """Every control that is seen is at least as large as a finger needs."""
    found = page.evaluate(
        """() => [...document.querySelectorAll("button, summary, textarea, input")]
          .filter((one) => one.checkVisibility())
          .map((one) => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
          .filter(([, { width, height }]) => Math.min(width, height) < 43.5).map(([html]) => html)"""
    )
    assert found == []


def fits(board: Page) -> None:
    """Nothing of the board has to be scrolled to, and the way in does not lie over what students show."""
    assert board.evaluate("document.documentElement.scrollHeight <= innerHeight")
    names = (".qr", ".address", ".code", ".exhibits")
    boxes = [board.locator(name).bounding_box() for name in names]
    ends = [(box["y"], box["y"] + box["height"]) for box in boxes if box]
    assert len(ends) == 4 and all(end <= start for (_, end), (start, _) in pairwise(ends)), ends


@pytest.mark.trust("two phones and a board of one program", "numbers only reach the board", "class")
def test_two_phones_and_a_board_with_the_default_model():
    with running_app("--class", "--host", "127.0.0.1") as address, ExitStack() as tabs:
        with Phone(address) as owner:
            secret = owner.post("start").json()["secret"]
        board = tabs.enter_context(opened(address, f"class/board#{secret}", PROJECTOR))
        expect(board.locator(".code")).not_to_be_empty(timeout=60_000)
        assert secret not in board.url
        code = board.locator(".code").inner_text()
        one = tabs.enter_context(opened(address, f"class#{code}"))
        two = tabs.enter_context(opened(address, "class"))
        two.locator("[name=code]").fill(code.lower())
        two.locator(".join-form button").click()
        expect(board.locator(".tile-students")).to_have_text("2 of 30")
        write(one, f"You are a pirate. {SECRET}")
        write(two, "You are a ghost. Haunt me.")
        for phone in (one, two):
            expect(phone.locator("#pane-a .reply")).to_contain_text(
                re.compile(r"\w+ \w+"), timeout=TURN_TIMEOUT
            )
            answered(phone)
        expect(board.locator(".tile-turns")).to_have_text("2")
        board.wait_for_function("document.querySelector('#lines-chart .points path') !== null")
        assert SECRET not in board.content()
        one.locator(".show").click()
        expect(board.locator(".exhibit.asked")).to_have_count(1)
        assert SECRET not in board.content()
        board.locator(".exhibit button", has_text="Show").click()
        expect(board.locator(".exhibit .user")).to_contain_text(SECRET)
        for page in (board, one):
            page.reload()
        expect(board.locator(".exhibit .user")).to_contain_text(SECRET)
        expect(one.locator(".user")).to_contain_text(SECRET)
        board.locator(".exhibit button").click()
        expect(board.locator(".exhibit")).to_have_count(0)
        assert SECRET not in board.content() and SECRET not in two.content()


def test_the_answer_comes_after_the_guess_and_the_message_box_stays_in_view(there, engine):
    with opened(there.address, f"class#{there.code}") as phone:
        engine.words = [" a long reply"] * 400
        write(phone, "Hello")
        expect(phone.locator(".guess")).to_be_visible()
        assert phone.locator('[role="tab"]').all_inner_texts() == ["A", "B"]
        boxes = [phone.locator(name).bounding_box() for name in (".panes", ".guess", ".say")]
        tops = [box["y"] for box in boxes if box]
        assert tops == sorted(tops) and tops[-1] + boxes[-1]["height"] <= PHONE[1]  # type: ignore[index]
        phone.locator("#tab-a").focus()
        phone.keyboard.press("ArrowRight")
        expect(phone.locator("#tab-b")).to_be_focused()
        phone.wait_for_function("document.querySelector('.panes').scrollLeft > 300")
        phone.evaluate("document.querySelector('.panes').scrollTo({ left: 0, behavior: 'instant' })")
        expect(phone.locator("#tab-a")).to_have_attribute("aria-selected", "true")
        guess(phone, "b")
        names = phone.locator('[role="tab"]').all_inner_texts()
        right = names[1] == "Capped"
        assert sorted(names) == ["Capped", "Uncapped"]
        expect(phone.locator(".answer")).to_contain_text("Right" if right else "Not this time")
        expect(phone.locator(".answer")).to_contain_text("B was capped" if right else "A was capped")
        expect(phone.locator(".answer")).to_be_focused()
        expect(phone.locator(".spoken")).to_contain_text("Both replies are there.")
        assert phone.locator("#pane-a .low, #pane-a .high").count() > 0
        box = phone.locator(".say").bounding_box()
        assert box and box["y"] + box["height"] <= PHONE[1]


def test_a_message_is_taken_once_though_it_is_pressed_twice_or_its_answer_is_lost(there):
    with opened(there.address, f"class#{there.code}") as phone:
        sent: list[dict[str, str]] = []

        def lose_the_answer(route: Route) -> None:
            sent.append(json.loads(route.request.post_data or ""))
            route.fetch()
            route.abort()

        phone.route("**/class/say", lose_the_answer)
        phone.locator(".say textarea").fill("Hello")
        phone.evaluate("for (const _ of [1, 2, 3]) document.querySelector('.say').requestSubmit()")
        guess(phone, "a")
        expect(phone.locator(".which")).to_have_text("Turn 1 of 1")
        expect(phone.locator(".say textarea")).to_have_value("")
        assert [one["text"] for one in sent] == ["Hello"] and len(sent[0]["id"]) == 32
        phone.unroute("**/class/say")
        phone.route("**/class/say", lambda route: route.abort())
        write(phone, "and on")
        expect(phone.locator(".notice")).to_contain_text("connection was lost")
        expect(phone.locator(".say textarea")).to_have_value("and on")
        phone.unroute("**/class/say")
        phone.locator(".send").click()
        expect(phone.locator(".which")).to_have_text("Turn 2 of 2")
        expect(phone.locator(".say textarea")).to_have_value("")


def test_a_phone_stays_at_the_turn_that_is_read_and_goes_to_new_ones_alone(there):
    with opened(there.address, f"class#{there.code}") as phone:
        for number in (1, 2):
            write(phone, f"message {number}")
            guess(phone, "a")
            expect(phone.locator(".which")).to_have_text(f"Turn {number} of {number}")
        phone.locator(".turn-bar .back").click()
        expect(phone.locator(".user")).to_have_text("message 1")
        with Phone(there.address, token_of(phone)) as same:
            same.post("show", turn=1)
        phone.locator(".turn-bar .on").click()
        expect(phone.locator(".show")).to_contain_text("take it back")
        phone.locator(".turn-bar .back").click()
        with Phone(there.address, token_of(phone)) as same:
            same.post("withdraw", turn=1)
            same.say("message 3")
        expect(phone.locator(".which")).to_have_text("Turn 3 of 3")


def test_a_tap_on_a_tab_selects_it_once(there, engine):
    with opened(there.address, f"class#{there.code}") as phone:
        write(phone, "Hello")
        expect(phone.locator(".guess")).to_be_visible()
        phone.evaluate(
            """() => {
              window.selected = [];
              const note = () => window.selected.push(document.querySelector('[aria-selected=true]').id);
              const options = { subtree: true, attributeFilter: ['aria-selected'] };
              new MutationObserver(note).observe(document.querySelector('.tabs'), options);
            }"""
        )
        phone.locator("#tab-b").tap()
        phone.wait_for_function("document.querySelector('.panes').scrollLeft > 300")
        phone.wait_for_timeout(300)
        assert phone.evaluate("window.selected") == ["tab-b"]


@pytest.mark.parametrize("ended", [False, True])
def test_a_keyboard_leaves_room_for_the_replies_and_the_box(there, engine, ended: bool):
    engine.words = [" a long reply"] * 400
    with opened(there.address, f"class#{there.code}") as phone:
        write(phone, "Hello")
        expect(phone.locator(".guess")).to_be_visible()
        if ended:
            guess(phone, "a")
        phone.set_viewport_size({"width": 390, "height": 440})
        expect(phone.locator(".actions")).to_be_hidden()
        expect(phone.locator(".line")).to_be_hidden()
        panes, box = (phone.locator(name).bounding_box() for name in (".panes", ".say"))
        assert panes and box
        assert panes["height"] >= 100 and panes["y"] + panes["height"] <= box["y"]
        assert box["y"] + box["height"] <= 440
        for name in ("main", ".own"):
            overflow = "(one) => one.scrollHeight - one.clientHeight"
            assert phone.locator(name).evaluate(overflow) == 0, name


def test_the_box_stays_in_sight_where_a_keyboard_only_covers_the_page(there):
    with opened(there.address, "class") as phone:
        phone.add_init_script(IPHONE)
        phone.goto(f"{there.address}class#{there.code}")
        phone.reload()
        expect(phone.locator(".say")).to_be_visible()
        phone.add_style_tag(content=".say textarea { field-sizing: fixed; }")
        low = phone.locator(".say textarea").bounding_box()
        phone.locator(".say textarea").fill("one\ntwo\nthree")
        high = phone.locator(".say textarea").bounding_box()
        assert low and high and high["height"] > low["height"] + 20
        phone.evaluate(
            """() => {
              Object.assign(visualViewport, { height: 440, offsetTop: 120 });
              visualViewport.dispatchEvent(new Event("resize"));
            }"""
        )
        box = phone.locator(".say").bounding_box()
        assert box and box["y"] >= 120 and box["y"] + box["height"] <= 560


def test_an_answer_of_a_proxy_throws_nobody_out(there):
    with ExitStack() as tabs:
        board = tabs.enter_context(opened(there.address, board_of(there), PROJECTOR))
        phone = tabs.enter_context(opened(there.address, f"class#{there.code}"))
        expect(phone.locator(".say")).to_be_visible()
        expect(board.locator(".code")).to_have_text(there.code)
        for page, stream in ((board, "**/class/board/events*"), (phone, "**/class/events")):
            page.route(stream, lambda route: route.fulfill(status=502, body="Bad gateway"))
            page.reload()
            page.wait_for_timeout(2500)
            page.unroute(stream)
        expect(board.locator(".code")).to_have_text(there.code)
        expect(phone.locator(".say")).to_be_visible()


def test_a_student_whom_the_speaker_removes_does_not_come_back_alone(there):
    with ExitStack() as tabs:
        board = tabs.enter_context(opened(there.address, board_of(there), PROJECTOR))
        phone = tabs.enter_context(opened(there.address, f"class#{there.code}"))
        expect(board.locator(".tile-students")).to_have_text("1 of 30")
        board.locator(".set").click()
        board.locator("dialog .remove").select_option("1")
        board.locator("dialog .send-away").click()
        expect(phone.locator(".say")).to_be_visible()
        board.locator("dialog .send-away").click()
        expect(phone.locator(".sentence")).to_have_text("The speaker has removed you from the class.")
        phone.reload()
        expect(phone.locator(".join-form")).to_be_visible()
        expect(board.locator(".tile-students")).to_have_text("0 of 30")


def test_an_address_that_is_opened_in_the_same_tab_is_taken_up(there):
    there.pages._may_start = False
    with ExitStack() as tabs:
        board = tabs.enter_context(opened(there.address, "class/board#old", PROJECTOR))
        expect(board.locator(".closed")).to_contain_text("This is the speaker’s page")
        board.goto(there.address + board_of(there))
        expect(board.locator(".code")).to_have_text(there.code)
        assert there.secret not in board.url
        phone = tabs.enter_context(opened(there.address, "class#%E0%A4%A"))
        expect(phone.locator(".join-form")).to_be_visible()
        phone.goto(f"{there.address}class#{there.code.lower()}")
        expect(phone.locator(".who")).to_have_text("Student 1")
        phone.goto(f"{there.address}class#{there.code}")
        phone.reload()
        expect(phone.locator(".who")).to_have_text("Student 1")


def test_the_board_leaves_turns_without_the_cap_out_of_its_numbers(there):
    with Phone(there.address) as student, opened(there.address, board_of(there), PROJECTOR) as board:
        student.join(there.code)
        board.locator(".set").click()
        board.locator("dialog .cap").uncheck()
        board.locator("dialog .own-seeds").uncheck()
        board.locator("dialog .next").click()
        expect(board.locator(".lesson-name")).to_contain_text("cap off · seed 0 for all")
        student.say("without the cap")
        expect(board.locator(".tile-turns")).to_have_text("1")
        expect(board.locator(".tile-left-out")).to_contain_text("1 without the cap")
        expect(board.locator(".tile-lift")).to_have_text("–")


def test_what_cannot_be_taken_back_is_asked_twice(there):
    with ExitStack() as tabs:
        board = tabs.enter_context(opened(there.address, board_of(there), PROJECTOR))
        phone = tabs.enter_context(opened(there.address, f"class#{there.code}"))
        expect(phone.locator(".save")).to_be_hidden()
        write(phone, "Hello")
        expect(phone.locator(".save")).to_be_disabled()
        guess(phone, "a")
        expect(phone.locator(".save")).to_be_enabled()
        phone.locator(".again").click()
        expect(phone.locator(".again")).to_contain_text("Press again")
        expect(phone.locator(".user")).to_have_text("Hello")
        board.locator(".set").click()
        board.locator("dialog .anew").click()
        expect(board.locator("dialog .anew")).to_contain_text("Press again")
        expect(board.locator(".tile-turns")).to_have_text("1")
        board.locator("dialog .anew").click()
        expect(board.locator(".tile-turns")).to_have_text("0")
        expect(phone.locator(".empty")).to_be_visible()


def test_the_same_replies_are_not_guessed(there):
    with opened(there.address, f"class#{there.code}") as phone:
        write(phone, "the same please")
        expect(phone.locator(".answer")).to_contain_text("Both replies are the same")
        expect(phone.locator(".guess")).to_be_hidden()


def test_the_speaker_sets_pauses_and_clears(there):
    with ExitStack() as tabs:
        board = tabs.enter_context(opened(there.address, board_of(there), PROJECTOR))
        phone = tabs.enter_context(opened(there.address, f"class#{there.code}"))
        board.locator(".set").click()
        board.locator("dialog .scenario").select_option(index=1)
        board.locator("dialog .seed").fill("-3")
        board.locator("dialog .next").click()
        expect(board.locator("dialog .problem")).to_contain_text("whole number")
        board.locator("dialog .seed").fill("3")
        board.locator("dialog .next").click()
        expect(board.locator(".lesson-name")).to_contain_text("seed 3")
        expect(phone.locator(".say textarea")).not_to_have_value("")
        board.locator(".pause").click()
        expect(board.locator(".pause-mark")).to_be_visible()
        expect(phone.locator(".notice")).to_contain_text("paused")
        expect(phone.locator(".send")).to_be_disabled()
        board.locator(".pause").click()
        line = phone.locator(".say textarea").input_value()
        phone.locator(".send").click()
        guess(phone, "")
        expect(phone.locator(".user")).to_have_text(line)
        expect(phone.locator(".say textarea")).not_to_have_value(line)
        phone.locator(".say textarea").fill("")
        phone.locator(".show").click()
        expect(phone.locator(".show")).to_contain_text("take it back")
        expect(phone.locator(".say textarea")).to_have_value("")
        expect(board.locator(".tile-turns")).to_have_text("1")
        board.locator(".clear").click()
        expect(board.locator(".clear")).to_contain_text("Press again")
        board.locator(".clear").click()
        expect(board.locator(".tile-turns")).to_have_text("0")
        expect(phone.locator(".empty")).to_be_visible()
        code = there.code
        board.locator(".new-code").click()
        board.locator(".new-code").click()
        expect(board.locator(".code")).not_to_have_text(code)
        with board.expect_download() as saved:
            board.locator(".results").select_option("csv")
        assert saved.value.suggested_filename == "class.csv"


def test_a_restarted_program_gets_the_class_back_from_its_tabs():
    port = free_port()
    with ExitStack() as tabs:
        with running_app("--class", "--host", "127.0.0.1", port=port) as address:
            # Not the secret: on this machine the page asks for it itself.
            board = tabs.enter_context(opened(address, "class/board", PROJECTOR))
            expect(board.locator(".code")).not_to_be_empty()
            code = board.locator(".code").inner_text()
            phone = tabs.enter_context(opened(address, f"class#{code}"))
            other = tabs.enter_context(opened(address, f"class#{code}"))
            write(phone, SECRET)
            expect(phone.locator("#pane-a .reply")).to_contain_text(
                re.compile(r"\w+ \w+"), timeout=TURN_TIMEOUT
            )
            answered(phone)
            write(other, "a message whose replies are being written when the program ends")
            expect(board.locator(".tile-turns")).to_have_text(re.compile("1|2"))
        expect(phone.locator(".notice")).to_contain_text("connection was lost")
        with running_app("--class", "--host", "127.0.0.1", port=port):
            expect(board.locator(".notice")).to_contain_text("the class is back", timeout=60_000)
            expect(board.locator(".code")).to_have_text(code)
            expect(board.locator(".tile-students")).to_have_text("2 of 30", timeout=60_000)
            expect(phone.locator(".user")).to_have_text(SECRET)
            # It was accepted, or it never left the box; either way it is not lost.
            expect(other.locator(".say textarea")).to_have_value(re.compile("a message whose"))
            write(phone, "and on")
            expect(phone.locator(".which")).to_have_text("Turn 2 of 2", timeout=TURN_TIMEOUT)
            answered(phone)
            expect(board.locator(".tile-turns")).to_have_text(re.compile("2|3"))


def test_phones_follow_the_speaker_s_stage_within_a_second_and_go_on_alone(there):
    with opened(there.address, board_of(there), PROJECTOR) as board, ExitStack() as tabs:
        expect(board.locator(".code")).to_have_text(there.code)
        with board.context.expect_page() as opening:
            board.locator(".stage").click()
        stage = opening.value
        wait_until_loaded(stage)
        stage.locator(".mirror-button").click()
        phone = tabs.enter_context(opened(there.address, f"class#{there.code}"))
        steps = phone.evaluate("history.length")
        for name in (".follow", ".try", ".follow"):
            phone.locator(f".modes {name}").click()
        assert phone.evaluate("history.length") == steps
        followed = phone.frame_locator("iframe")
        say(stage, "What the speaker says")
        expect(followed.locator('[data-branch="capped"] .reply')).to_contain_text("Hello there!")
        slowest = 0.0
        for button, shown in (
            ("#map-tab", '#map-tab[aria-selected="true"]'),
            ('[data-display="lens"]', '#stage[data-display="lens"]'),
            ("#token-tab", '#token-tab[aria-selected="true"]'),
        ):
            began = time.monotonic()
            stage.locator(button).click()
            expect(followed.locator(shown)).to_have_count(1)
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 1, "a phone is a line behind"
        assert followed.locator(".toolbar").is_hidden() and followed.locator("button.select-turn").count()
        phone.locator(".from-here").click()
        expect(phone.locator(".user")).to_have_text("What the speaker says")
        write(phone, "the same and on")
        expect(phone.locator(".answer")).to_contain_text("the same")
        kept = phone.evaluate("JSON.parse(sessionStorage['persona-drift-class-student']).turns")
        assert [turn["taken"] for turn in kept] == [True, False]
        phone.locator(".modes .follow").click()
        stage.locator(".mirror-button").click()
        expect(phone.locator(".modes")).to_be_hidden()
        expect(phone.locator(".say")).to_be_visible()
    held("changes of the speaker's stage on a phone that follows", 3, "shown within a second", "class")


def test_the_speaker_s_page_goes_on_after_a_lost_request_and_says_why_it_ends(there):
    with opened(there.address, board_of(there), PROJECTOR) as board, ExitStack() as tabs:
        expect(board.locator(".code")).to_have_text(there.code)
        with board.context.expect_page() as opening:
            board.locator(".stage").click()
        stage = opening.value
        wait_until_loaded(stage)
        stage.route("**/class/mirror", lambda route: route.abort())
        stage.locator(".mirror-button").click()
        stage.wait_for_timeout(2000)
        expect(stage.locator(".mirror-button")).to_have_attribute("aria-pressed", "true")
        stage.unroute("**/class/mirror")
        phone = tabs.enter_context(opened(there.address, f"class#{there.code}"))
        phone.locator(".modes .follow").click()
        say(stage, "What the speaker says")
        followed = phone.frame_locator("iframe")
        expect(followed.locator('[data-branch="capped"] .reply')).to_contain_text("Hello there!")
        expect(followed.locator(".waiting")).to_be_hidden()
        asked: list[str] = []

        def refuse(route: Route) -> None:
            asked.append(route.request.url)
            route.fulfill(status=400, json={"detail": "Too long for the phones."})

        stage.route("**/class/mirror", refuse)
        stage.locator("#map-tab").click()
        expect(stage.locator(".notices")).to_contain_text("Too long for the phones.")
        expect(stage.locator(".mirror-button")).to_have_attribute("aria-pressed", "false")
        expect(phone.locator(".say")).to_be_visible()
        assert len(asked) == 1


def test_where_another_class_is_open_its_code_is_asked_for_once(there):
    with opened(there.address, f"class#{there.code}") as phone:
        write(phone, "Hello")
        guess(phone, "a")
        there.pages.classroom = None
        there.pages.open()
        phone.reload()
        expect(phone.locator(".sentence")).to_have_text("A new class is open here; enter its code.")
        phone.locator("[name=code]").fill("WRONG")
        phone.locator(".join-form button").click()
        expect(phone.locator(".sentence")).to_contain_text("no class with this code")
        phone.wait_for_timeout(4000)
        expect(phone.locator(".sentence")).to_contain_text("no class with this code")
        phone.locator("[name=code]").fill(there.code)
        phone.locator(".join-form button").click()
        expect(phone.locator(".empty")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_on_the_phone(there, dark: bool):
    with opened(there.address, "class", PHONE, dark) as phone:
        no_violations(phone, "join")
        phone.locator("[name=code]").fill("WRONG")
        phone.locator(".join-form button").click()
        expect(phone.locator(".sentence")).to_contain_text("no class with this code")
        phone.locator("[name=code]").fill(there.code)
        phone.locator(".join-form button").click()
        expect(phone.locator(".empty")).to_be_visible()
        no_violations(phone, "empty")
        write(phone, "Hello")
        expect(phone.locator(".guess")).to_be_visible()
        no_violations(phone, "guess")
        finger_sized(phone)
        guess(phone, "a")
        no_violations(phone, "answer")
        finger_sized(phone)


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing_on_the_board(there, dark: bool):
    with Phone(there.address) as student, opened(there.address, board_of(there), PROJECTOR, dark) as board:
        expect(board.locator(".code")).to_have_text(there.code)
        no_violations(board, "empty")
        student.join(there.code)
        for number in range(3):
            student.say(f"message {number}")
            student.post("guess", turn=number, pane="a")
        student.post("show", turn=0)
        board.locator(".exhibit button", has_text="Show").click()
        expect(board.locator(".exhibit .user")).to_have_text("message 0")
        for size in (PROJECTOR, (1600, 900), (1920, 1080), PHONE):
            board.set_viewport_size({"width": size[0], "height": size[1]})
            board.wait_for_function("document.querySelector('#boxes-chart .main-svg') !== null")
            no_violations(board, f"full at {size}")
            if size != PHONE:
                fits(board)
        board.locator(".set").click()
        no_violations(board, "lesson")


def test_the_board_shows_nothing_without_the_secret(there):
    with opened(there.address, "class/board#guessed") as page:
        # On the machine that runs the program the page gets the secret; from elsewhere it does not.
        expect(page.locator(".code")).to_have_text(there.code)
    there.pages._may_start = False
    with opened(there.address, "class/board#guessed") as page:
        expect(page.locator(".closed")).to_contain_text("This is the speaker’s page")
        expect(page.locator(".door")).to_be_hidden()


def test_whoever_started_the_program_opens_a_class_from_the_page():
    # In a window so wide the settings are open from the beginning.
    with running_app() as address, chromium_page(address, 1440, 900) as (page, _):
        with page.context.expect_page() as opening:
            page.locator("#open-class").click()
        expect(opening.value.locator(".code")).not_to_be_empty()
