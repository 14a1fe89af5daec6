"""An engine whose answers are known."""

from __future__ import annotations

from threading import Event

from demo.conversation.settings import CAPPED, TurnSettings
from demo.engine.protocol import Load, PromptEvent, ReadToken, Sampling, TokenEvent
from demo.utils.errors import UserError

SETTINGS = TurnSettings(Sampling(max_new_tokens=9), None, "Be kind.")


class ScriptedEngine:
    """Replies `words` in both branches, the capped one corrected on every second word; may fail midway."""

    def __init__(self, words=("Hello", " there", "!"), fail_after: int | None = None, refuse: bool = False):
        self.words, self.fail_after, self.refuse = words, fail_after, refuse
        self.requests: list = []
        self.forgotten: list[str] = []

    def stream(self, requests, cancel=None):
        if self.refuse:
            raise UserError("No.")
        self.requests = list(requests)
        return self._events(cancel)

    def _events(self, cancel):
        for request in self.requests:
            yield PromptEvent(request.branch, 10, 0, 0.25)
        for number, word in enumerate(self.words):
            if number == self.fail_after:
                raise RuntimeError("out of memory")
            for request in self.requests:
                branch = request.branch.rpartition("/")[2].partition("#")[0]
                fix = 0.5 if branch == CAPPED and number % 2 == 0 else 0.0
                yield TokenEvent(
                    request.branch,
                    number,
                    word,
                    -0.5,
                    -0.5 + fix,
                    (fix, 0.0),
                    10 + number,
                    False,
                    None,
                    (0.5, 0.0, -0.25),
                    0.75,
                )
        for request in self.requests:
            yield TokenEvent(request.branch, 2, "", None, None, (), 13, True, "stop")

    @property
    def load(self):
        return Load(2, 0, 3 * 2**20, 2**30)

    def forget(self, branches):
        self.forgotten += branches

    def read(self, request, cancel=None):
        """Each word of each message is a token; layer l of word w reads w + l, and the cap lifts layer 1 by one."""
        for index, message in enumerate(request.messages):
            words = message["content"].split()
            yield [
                ReadToken(
                    index, word, (0.1 * n, n, n + 2.0), (0.1 * n, n + (request.cap is not None), n + 2.0)
                )
                for n, word in enumerate(words)
            ]


class PatientEngine(ScriptedEngine):
    """Holds every reply back after its first token until `go` is set; `queued` replies wait for room."""

    def __init__(self) -> None:
        super().__init__()
        self.go, self.queued, self.answered = Event(), 0, 0
        self.go.set()

    def _events(self, cancel):
        for number, event in enumerate(super()._events(cancel)):
            if number == 3 and not self.go.wait(30):
                raise RuntimeError("the test never said go")
            yield event
        self.answered += 1

    @property
    def load(self):
        return Load(0, self.queued, 0, 2**30)
