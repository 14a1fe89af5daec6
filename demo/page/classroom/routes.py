"""The requests of a class. Every body is a JSON object, every answer is one, or {"detail": one sentence}.

A student's and the speaker's requests carry their token as `X-Class-Token`; there are no cookies, so no other
site's page can act in their name.

| request | of | body → answer |
|---|---|---|
| GET class, class/stage | anybody | the page of a phone, and what it follows the speaker with |
| GET class/board | anybody | the page of the board; it shows nothing without the speaker's secret |
| GET class/plotly.min.js | anybody | the library of the charts |
| GET class/hello | anybody | → {open, same}: is there a class, and has it the id in `X-Class-Id`? |
| POST class/join | anybody | {code, token?, class?, session?, …} → {token, head, problem}; see `_join` |
| GET class/events | a student | a stream of "state", "head", "turn" and "tokens" |
| POST class/say | a student | {text, id} → {} once the replies have begun; an id is answered once |
| POST class/stop, class/again | a student | {} → {}: stop the replies; begin another conversation |
| POST class/alone | a student | {} → {}: go on from the speaker's conversation |
| POST class/guess | a student | {turn, pane: "a", "b" or ""} → {} |
| POST class/show, class/withdraw | a student | {turn} → {}: show a turn to the class, or no longer |
| GET class/follow | a student | a stream of "mirror": what the speaker's stage shows |
| POST class/start | this machine | {} → {secret}: open a class, or find the one that is open |
| GET class/board/events | the speaker | a stream of "door" and "board" |
| POST class/speaker | the speaker | {do, …} → {}; see `Speaker` |
| POST class/mirror | the speaker | {ops, view} → {again}: what the speaker's stage was sent |
| GET class/results.csv, class/results.json | the speaker | the numbers of the class |

The messages of the streams are server-sent events with a JSON object each:

- state: {class, student, place, paused, lesson, chat, turns, writing, ahead, problem, mirrored}; `place` is 0
  with a seat, and else the place in the queue.
- head: {head}, the session file of the student's conversation without its turns.
- turn: {turn, view}, the whole turn as its student may see it; see `demo.page.classroom.talk.turn_view`.
- tokens: {turn, panes: {a: {tokens}, b: {tokens}}}, those since the last message.
- mirror: {ops, view}, operations of the stage (stage/protocol.json); the first has all.
- door: {code, address, qr, figure, scenarios, model, reachable}; board: see `Classroom.board`.
- gone: {}, the student is no longer in the class.

A student whom the speaker has removed gets the status 410.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date as Date
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import plotly
from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from demo.conversation.conversation import Conversation
from demo.conversation.lesson import Lesson
from demo.conversation.scenarios import Scenario
from demo.conversation.settings import CapChoice
from demo.page.chat_handlers import plain_reason
from demo.page.classroom import pages
from demo.page.classroom.classroom import Classroom, RemovedError, WrongCodeError
from demo.page.classroom.mirror import Mirror
from demo.page.classroom.numbers import results_csv, results_json, rows_from
from demo.page.classroom.origin import is_from_this_machine, is_same_site, phone_address
from demo.page.classroom.students import Student
from demo.page.classroom.talk import (
    Loaded,
    Sent,
    Talk,
    conversation_of,
    news,
    session_head,
    speakers_conversation,
)
from demo.page.hosting import MOST_STUDENTS
from demo.page.json_requests import json_body
from demo.page.rate_limit import LaterError, LoginLimiter, RateLimiter, address_of
from demo.plots.figures import turn_figure
from demo.utils.errors import UserError

TOKEN_HEADER, CLASS_HEADER = "x-class-token", "x-class-id"

# Bytes. A message with its JSON; a conversation that a tab gives back; what a stage is sent at once.
MOST_SMALL, MOST_SESSION = 64 * 1024, 6 * 2**20

# Seconds between two looks at what a stream has not been sent yet. A phone shows tokens as they come; a board
# is looked at from afar.
PHONE_S, BOARD_S, MIRROR_S = 0.1, 0.25, 0.1
_ALIVE_S = 15.0  # a stream in which nothing happens says so, so that a broken connection is noticed

_THREADS = 256  # turns that are answered at once; each occupies a thread

_PLOTLY = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
_FAILED = "That failed ({}); try again."
_CLOSED = "No class is open here; ask the speaker for the address."

Answer = Callable[[Request], Awaitable[Response]]


class RefusedError(UserError):
    """A request without the right token. Attributes: status: 401 or 403."""

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


class ClassPages:
    """Answers the requests of a class, once one is open.

    Attributes:
        classroom: None until somebody opens a class.
    """

    def __init__(
        self,
        loaded: Loaded,
        rate_limiter: RateLimiter,
        scenarios: Sequence[Scenario] = (),
        root_path: str = "",
        room: int = MOST_STUDENTS,
        address: str = "",
        may_start: bool = True,
        reachable: bool = True,
    ) -> None:
        """No class is open yet.

        Args:
            scenarios: what the speaker may choose from.
            root_path: the path under which a reverse proxy serves the page.
            room: students who may talk to the model at once.
            address: where phones find this page, without `/class`; empty to find it out.
            may_start: whether a visitor of this machine may open a class, and become its speaker.
            reachable: whether the page listens to other machines.
        """
        self._loaded, self._rate_limiter, self._scenarios = loaded, rate_limiter, tuple(scenarios)
        self._root_path, self._room, self._address = root_path, room, address.rstrip("/")
        self._may_start, self._reachable = may_start, reachable
        self._wrong_codes = LoginLimiter()
        self._threads = CapacityLimiter(_THREADS)
        self._running = set[asyncio.Future[None]]()  # asyncio itself keeps no reference to a task
        self._forgetting = ThreadPoolExecutor(1, "class-forget")  # an engine elsewhere may be slow to answer
        self.classroom: Classroom | None = None
        self._mirror = Mirror()
        self._shown: tuple[int, Conversation] | None = None  # of the mirror: its serial, and its turns
        self._reading = asyncio.Lock()

    def open(self) -> Classroom:
        """Open a class, or return the one that is open."""
        if self.classroom is None:
            marks = CapChoice.of_axis(self._loaded.axis).marks(self._loaded.axis)
            self.classroom = Classroom(marks, self._room, self._forget)
        return self.classroom

    def _forget(self, conversation: Conversation) -> None:
        self._forgetting.submit(self._loaded.forget, conversation)

    def routes(self) -> list[Route]:
        """The routes for the server of the page."""
        gets: dict[str, Answer] = {
            "class": self._page,
            "class/board": self._page,
            "class/stage": self._page,
            "class/plotly.min.js": self._plotly,
            "class/hello": self._hello,
            "class/events": self._events,
            "class/follow": self._follow,
            "class/board/events": self._board_events,
            "class/results.csv": self._results,
            "class/results.json": self._results,
        }
        posts: dict[str, Answer] = {
            "class/start": self._start,
            "class/join": self._join,
            "class/say": self._say,
            "class/stop": self._student_does,
            "class/again": self._student_does,
            "class/guess": self._student_does,
            "class/show": self._student_does,
            "class/withdraw": self._student_does,
            "class/alone": self._student_does,
            "class/speaker": self._speaker_does,
            "class/mirror": self._take_mirror,
        }
        routes = [Route(f"/{path}", _guarded(answer)) for path, answer in gets.items()]
        return routes + [
            Route(f"/{path}", _guarded(answer), methods=["POST"]) for path, answer in posts.items()
        ]

    # --- pages

    async def _page(self, request: Request) -> Response:
        write = {"board": pages.board_html, "stage": pages.stage_html}.get(_name(request), pages.phone_html)
        # A server that was restarted may have a newer page.
        return HTMLResponse(write(self._root_path), headers={"Cache-Control": "no-store"})

    async def _plotly(self, request: Request) -> Response:
        # The page names the release, so a browser may keep the file.
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return FileResponse(_PLOTLY, media_type="text/javascript", headers=headers)
        packed = await run_sync(_packed_plotly)
        return Response(packed, media_type="text/javascript", headers=headers | {"Content-Encoding": "gzip"})

    # --- who may

    def _open_class(self) -> Classroom:
        if self.classroom is None:
            raise RefusedError(_CLOSED, 404)
        return self.classroom

    def _student(self, request: Request) -> Student:
        student = self._open_class().student(request.headers.get(TOKEN_HEADER, ""))
        if student is None:
            raise RefusedError("You are not in this class; join again.", 401)
        return student

    def _speaker(self, request: Request) -> Classroom:
        classroom = self._open_class()
        if not classroom.is_speaker(request.headers.get(TOKEN_HEADER, "")):
            raise RefusedError("Only the speaker of the class may do that.", 401)
        return classroom

    async def _start(self, request: Request) -> Response:
        await json_body(request, MOST_SMALL)
        if not self._may_start or not is_from_this_machine(request):
            raise RefusedError("A class is opened on the machine that runs the program, and only there.")
        return JSONResponse({"secret": self.open().secret})

    # --- students

    async def _hello(self, request: Request) -> Response:
        classroom, asked = self.classroom, request.headers.get(CLASS_HEADER)
        found = {"open": classroom is not None, "same": classroom is not None and classroom.id == asked}
        return JSONResponse(found, headers={"Cache-Control": "no-store"})

    async def _join(self, request: Request) -> Response:
        """A tab that was in the class gives back its conversation: session, guesses, scenarios, taken."""
        classroom, address = self._open_class(), address_of(request)
        body = await json_body(request, MOST_SESSION)
        code, token, known_as = body.get("code"), body.get("token") or "", body.get("class") or ""
        if not all(
            isinstance(one, str) and len(one) <= 80 and one.isascii() for one in (code, token, known_as)
        ):
            raise UserError("The code is the letters and digits on the screen.")
        student = classroom.student(token) or self._joined(classroom, address, str(code), token, known_as)
        problem = ""
        if body.get("session") is not None and not student.turns:
            try:
                size = int(request.headers.get("content-length", MOST_SESSION))
                await self._give_back(student, body, address, size)
            except UserError as error:  # the student is in the class all the same
                problem = str(error)
        head = session_head(classroom, self._loaded, student)
        return JSONResponse({"token": student.token, "head": head, "problem": problem})

    def _joined(self, classroom: Classroom, address: str, code: str, token: str, known_as: str) -> Student:
        # Right codes are not counted: a whole school may have one address.
        if self._wrong_codes.is_over(address):
            raise LaterError("There were too many wrong codes from your address; wait a minute.", 60)
        try:
            return classroom.join(code, token, known_as)
        except WrongCodeError:
            self._wrong_codes.too_many(address)
            raise

    async def _give_back(self, student: Student, body: dict[str, Any], address: str, size: int) -> None:
        guesses, ids = _texts(body.get("guesses")), {one.id for one in self._scenarios}
        scenarios = [one if one in ids else "" for one in _texts(body.get("scenarios"))]
        taken = [one is True for one in body.get("taken") or [False] * len(guesses)]
        self._rate_limiter.file(address, size)
        conversation = await run_sync(conversation_of, body["session"], self._loaded)
        self._open_class().give_back(student, conversation, guesses, scenarios, taken)

    async def _events(self, request: Request) -> Response:
        classroom, student, sent = self._open_class(), self._student(request), Sent()
        classroom.check_may_listen(student)

        def fresh() -> Iterable[dict[str, Any]]:
            if student.gone:
                return [{"type": "gone"}]
            return news(classroom, self._loaded, student, sent, self._mirror.is_live)

        return _stream(fresh, PHONE_S, lambda: classroom.present(student))

    async def _follow(self, request: Request) -> Response:
        classroom, student, sent = self._open_class(), self._student(request), [-1]
        classroom.check_may_listen(student)

        def fresh() -> Iterable[dict[str, Any]]:
            if student.gone:
                return [{"type": "gone"}]
            if self._mirror.serial == sent[0]:
                return ()
            sent[0], ops, view = self._mirror.since(sent[0])
            return [{"type": "mirror", "ops": ops, "view": view}]

        return _stream(fresh, MIRROR_S, lambda: classroom.present(student))

    async def _say(self, request: Request) -> Response:
        student = self._student(request)
        body = await json_body(request, MOST_SMALL)
        id = body.get("id", "")
        if not isinstance(id, str) or len(id) > 40:
            raise UserError("The page asked for something unknown; reload it.")
        talk, loop = Talk(self._open_class(), self._loaded, self._rate_limiter), asyncio.get_running_loop()
        begun: asyncio.Future[Exception | None] = loop.create_future()

        def settle(error: Exception | None) -> None:
            if not begun.done():  # it is done where the request was cancelled
                begun.set_result(error)

        def began(error: Exception | None) -> None:
            loop.call_soon_threadsafe(settle, error)

        address = address_of(request)
        work = run_sync(talk.say, student, body.get("text"), id, address, began, limiter=self._threads)
        running = asyncio.ensure_future(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        running.add_done_callback(lambda _: settle(UserError("The server is about to end; try again.")))
        error = await begun
        if error is not None:
            raise error
        return JSONResponse({})

    async def _student_does(self, request: Request) -> Response:
        classroom, student = self._open_class(), self._student(request)
        body = await json_body(request, MOST_SMALL)
        turn, pane = body.get("turn", -1), body.get("pane", "")
        if type(turn) is not int or not isinstance(pane, str):
            raise UserError("The page asked for something unknown; reload it.")
        kind = _name(request)
        if kind == "stop":
            student.conversation.stop()
        elif kind == "again":
            classroom.new_chat(student)
        elif kind == "guess":
            classroom.guess(student, turn, pane)
        elif kind == "alone":
            shown = await self._speakers_conversation(classroom)
            classroom.go_on_from(student, Conversation(list(shown.turns), date=shown.date))
        elif kind == "show":
            classroom.ask_to_show(student, turn)
        else:
            classroom.withdraw(student, turn)
        return JSONResponse({})

    async def _speakers_conversation(self, classroom: Classroom) -> Conversation:
        """What the speaker's stage shows; read once for all students who go on from it."""
        async with self._reading:
            serial = self._mirror.serial
            if self._shown is None or self._shown[0] != serial:
                turns = self._mirror.turns()
                found = await run_sync(speakers_conversation, turns, self._loaded, classroom.marks)
                self._shown = serial, found
            return self._shown[1]

    # --- the speaker

    async def _board_events(self, request: Request) -> Response:
        classroom = self._speaker(request)
        asked = request.query_params.get("from", "")
        doors: list[tuple[str, str]] = []
        marks: list[tuple[int, int]] = []

        def fresh() -> Iterable[dict[str, Any]]:
            mark, found = classroom.mark(), list[dict[str, Any]]()
            if mark in marks:
                return found
            marks[:] = [mark]
            address = phone_address(self._address, asked, self._root_path)
            if (classroom.code, address) not in doors:
                doors[:] = [(classroom.code, address)]
                found.append(self._door(classroom, address))
            return [*found, {"type": "board"} | classroom.board()]

        return _stream(fresh, BOARD_S)

    def _door(self, classroom: Classroom, address: str) -> dict[str, Any]:
        return {
            "type": "door",
            "code": classroom.code,
            "address": address,
            "qr": pages.qr_svg(f"{address}#{classroom.code}"),
            "figure": turn_figure(classroom.marks),
            "scenarios": [{"id": one.id, "title": one.title, "prompt": one.system_prompt, "seed": one.seed}
                          for one in self._scenarios],
            "model": self._loaded.name,
            "reachable": self._reachable,
        }  # fmt: skip

    async def _speaker_does(self, request: Request) -> Response:
        classroom = self._speaker(request)
        Speaker(classroom, self._scenarios, self._mirror).do(await json_body(request, MOST_SESSION))
        return JSONResponse({})

    async def _take_mirror(self, request: Request) -> Response:
        self._speaker(request)
        body = await json_body(request, 2 * MOST_SESSION)
        return JSONResponse({"again": not self._mirror.put(body.get("ops"), body.get("view"))})

    async def _results(self, request: Request) -> Response:
        classroom = self._speaker(request)
        rows, day = classroom.rows(), Date.today().isoformat()
        if request.url.path.endswith(".csv"):
            return Response(results_csv(rows), media_type="text/csv; charset=utf-8")
        text = results_json(rows, self._loaded.name, classroom.marks, day)
        return Response(text, media_type="application/json")


class Speaker:
    """What the speaker may do, by the field `do` of a request.

    lesson: {scenario, system_prompt, cap, seed, own_seeds, guess}, for all messages from now on. pause:
    {paused}. clear. code: another join code. allow, refuse: {exhibit}. remove: {student}, 0 for all. room:
    {room}. unfollow: phones no longer follow the stage. restore: {class, code, lesson, paused, rows}, after a
    restart of the server.
    """

    def __init__(self, classroom: Classroom, scenarios: Sequence[Scenario], mirror: Mirror) -> None:
        """Act on `classroom`."""
        self._classroom, self._scenarios, self._mirror = classroom, scenarios, mirror

    def do(self, asked: dict[str, Any]) -> None:
        """Do what was asked. Raises UserError when it cannot be done; then nothing has changed."""
        classroom, do = self._classroom, asked.get("do")
        if do == "lesson":
            classroom.set_lesson(Lesson.of(asked, self._scenarios))
        elif do == "pause":
            classroom.pause(asked.get("paused") is True)
        elif do == "clear":
            classroom.clear()
        elif do == "code":
            classroom.change_code()
        elif do in ("allow", "refuse"):
            classroom.decide(_whole(asked, "exhibit"), do == "allow")
        elif do == "remove":
            classroom.remove(_whole(asked, "student"))
        elif do == "room":
            classroom.set_room(_whole(asked, "room"))
        elif do == "unfollow":
            self._mirror.clear()
        elif do == "restore":
            self._restore(asked)
        else:
            raise UserError("The page asked for something unknown; reload it.")

    def _restore(self, asked: dict[str, Any]) -> None:
        lesson, rows = asked.get("lesson"), rows_from(asked.get("rows"))
        if not isinstance(lesson, dict):
            raise UserError("The class that this tab has stored is damaged; open a new one.")
        self._classroom.bring_back(
            str(asked.get("class")),
            str(asked.get("code")),
            Lesson.of(lesson, self._scenarios),
            asked.get("paused") is True,
            rows,
        )


def _name(request: Request) -> str:
    """The last part of the request's path."""
    return request.url.path.rstrip("/").rpartition("/")[2]


@cache
def _packed_plotly() -> bytes:
    return gzip.compress(_PLOTLY.read_bytes())


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) and len(one) <= 80 for one in value):
        raise UserError("Your stored conversation is damaged; begin a new one.")
    return value


def _whole(asked: dict[str, Any], field: str) -> int:
    value = asked.get(field)
    if type(value) is not int:
        raise UserError("The page asked for something unknown; reload it.")
    return value


# --- answers


def _guarded(answer: Answer) -> Answer:
    """The answer, or one sentence that says why there is none. Another site's page gets none."""

    async def answer_or_refuse(request: Request) -> Response:
        try:
            if not is_same_site(request):
                raise RefusedError("Another site's page may not ask for that.")
            return await answer(request)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:
            return _refusal(error)

    return answer_or_refuse


def _refusal(error: Exception) -> Response:
    detail = {"detail": plain_reason(error, _FAILED)}
    if isinstance(error, LaterError):
        return JSONResponse(detail, 429, {"Retry-After": str(error.seconds)})
    if isinstance(error, RefusedError):
        return JSONResponse(detail, error.status)
    if isinstance(error, RemovedError):
        return JSONResponse(detail, 410)
    return JSONResponse(detail, 400 if isinstance(error, UserError) else 500)


def _stream(
    fresh: Callable[[], Iterable[dict[str, Any]]], pause: float, around: Callable[[], Any] = ExitStack
) -> Response:
    """Server-sent events: every `pause` seconds what is fresh, until the client leaves or is gone.

    Args:
        around: makes the context for as long as the stream is open.
    """

    async def lines() -> AsyncIterator[bytes]:
        with around():
            quiet = 0.0
            while True:
                for message in fresh():
                    quiet = 0.0
                    yield b"data: " + orjson.dumps(message) + b"\n\n"
                    if message["type"] == "gone":
                        return
                await asyncio.sleep(pause)
                quiet += pause
                if quiet >= _ALIVE_S:
                    quiet = 0.0
                    yield b": still here\n\n"

    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
