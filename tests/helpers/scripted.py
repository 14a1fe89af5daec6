"""Engines whose replies are known in advance."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event

from demo.conversation.settings import CAPPED, TurnSettings
from demo.engine.protocol import Load, PromptEvent, ReadToken, Sampling, Token, TokenEvent
from demo.utils.errors import UserError

SETTINGS = TurnSettings(Sampling(max_new_tokens=9), None, "Be kind.")


class ScriptedEngine:
    """Replies `words` in every branch; the cap corrects every second word of the capped one.

    Attributes:
        words: The words of each reply.
        fail_after: Number of words after which a reply fails; None for never.
        refuse: Whether every request is refused at once.
        requests: The requests of the latest turn.
        forgotten: All branches that the engine was told to forget.
    """

    def __init__(self, words=("Hello", " there", "!"), fail_after: int | None = None, refuse: bool = False):
        self.words, self.fail_after, self.refuse = words, fail_after, refuse
        self.requests: list = []
        self.forgotten: list[str] = []

    def stream(self, requests, cancel=None):
        if self.refuse:
            raise UserError("No.")
        self.requests = list(requests)
        return self._events(cancel)

    def _events(self, cancel) -> Iterator[PromptEvent | TokenEvent]:
        for request in self.requests:
            yield PromptEvent(request.branch, 10, 0, 0.25)
        for number, word in enumerate(self.words):
            if number == self.fail_after:
                raise RuntimeError("out of memory")
            for request in self.requests:
                branch = request.branch.rpartition("/")[2].partition("#")[0]
                correction = 0.5 if branch == CAPPED and number % 2 == 0 else 0.0
                yield TokenEvent(
                    request.branch,
                    number,
                    Token(word, -0.5, -0.5 + correction, (correction, 0.0), False, (0.5, 0.0, -0.25), 0.75),
                    10 + number,
                )
        for request in self.requests:
            yield TokenEvent(request.branch, 2, Token("", None, None, (), True), 13, "stop")

    @property
    def load(self) -> Load:
        return Load(2, 0, 3 * 2**20, 2**30)

    def forget(self, branches) -> None:
        self.forgotten += branches

    def read(self, request, cancel=None):
        """Each word is a token; word n reads 0.1 n, n and n + 2 at three layers; a cap adds 1 at layer 1."""
        for index, message in enumerate(request.messages):
            words = message["content"].split()
            yield [
                ReadToken(
                    index, word, (0.1 * n, n, n + 2.0), (0.1 * n, n + (request.cap is not None), n + 2.0)
                )
                for n, word in enumerate(words)
            ]


class PatientEngine(ScriptedEngine):
    """Holds every reply back after its first token until the test sets `go`.

    Attributes:
        go: Set at first; clear it to hold replies back.
        queued: Replies that wait for room, as `load` reports them.
        load_error: Raised by `load` if set.
        answered: Replies that came to their end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.go, self.queued, self.answered = Event(), 0, 0
        self.load_error: Exception | None = None
        self.go.set()

    def _events(self, cancel):
        for number, event in enumerate(super()._events(cancel)):
            if number == 3 and not self.go.wait(30):
                raise RuntimeError("the test did not set go")
            yield event
        self.answered += 1

    @property
    def load(self) -> Load:
        if self.load_error is not None:
            raise self.load_error
        return Load(0, self.queued, 0, 2**30)
