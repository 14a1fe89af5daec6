"""Engines whose replies are known in advance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event

from demo.conversation.settings import CAPPED, UNCAPPED, TurnSettings
from demo.engine.protocol import Load, PromptEvent, ReadToken, Sampling, Token, TokenEvent
from demo.models.chat_template import LeftOut
from demo.utils.errors import UserError

SETTINGS = TurnSettings(Sampling(max_new_tokens=9, soft_limit=5), None, "Be kind.")
FAULT = "The model's numbers overflowed, so this reply ended; try float32."


def _name_of(branch: str) -> str:
    """The branch's name within its conversation."""
    return branch.rpartition("/")[2].partition("#")[0]


class ScriptedEngine:
    """Replies `words` in every branch; the cap corrects every second word of the capped one.

    Attributes:
        words: The words of each reply.
        thoughts: The words of the reasoning before it, when the request asks for reasoning. The uncapped
            branch reasons one word longer than the others.
        fail_after: Number of words after which a turn fails; None for never.
        failing: The branch whose reply alone fails, after its first word; empty for none.
        left_out: What the chat template leaves out of every prompt.
        start: Where every reply begins; None for an engine that does not tell. It has no effect on the cap.
        refuse: Whether every request is refused at once.
        requests: The requests of the latest turn.
        forgotten: All branches that the engine was told to forget.
    """

    reads_plain = False
    conditional_caps = True

    def __init__(
        self,
        words: Sequence[str] = ("Hello", " there", "!"),
        fail_after: int | None = None,
        refuse: bool = False,
        thoughts: Sequence[str] = (),
        failing: str = "",
        left_out: tuple[LeftOut, ...] = (),
        start: float | None = None,
    ) -> None:
        self.words, self.fail_after, self.refuse = words, fail_after, refuse
        self.thoughts, self.failing, self.left_out = thoughts, failing, left_out
        self.start = start
        self.requests: list = []
        self.forgotten: list[str] = []

    def stream(self, requests, cancel=None):
        if self.refuse:
            raise UserError("No.")
        self.requests = list(requests)
        return self._events(cancel)

    def _events(self, cancel) -> Iterator[PromptEvent | TokenEvent]:
        for request in self.requests:
            yield PromptEvent(request.branch, 10, 0, 0.25, self.left_out, self.start)
        replies = {request.branch: self._reply(request) for request in self.requests}
        for number in range(max(map(len, replies.values()), default=0)):
            if number == self.fail_after:
                raise RuntimeError("out of memory")
            for branch, tokens in replies.items():
                if number < len(tokens):
                    yield TokenEvent(branch, number, tokens[number], 10 + number)
        for branch, tokens in replies.items():
            failed = self.failing and _name_of(branch) == self.failing
            yield TokenEvent(
                branch,
                2,
                Token("", None, None, (), True),
                10 + len(tokens),
                "failed" if failed else "stop",
                FAULT if failed else "",
            )

    def _reply(self, request) -> list[Token]:
        branch = _name_of(request.branch)
        thoughts = [*self.thoughts, " Hm."][: len(self.thoughts) + (branch == UNCAPPED)]
        words = [(word, True) for word in thoughts if request.thinking and self.thoughts]
        words += [(word, False) for word in self.words]
        tokens = []
        for number, (word, reasoning) in enumerate(words):
            correction = 0.5 if branch == CAPPED and number % 2 == 0 else 0.0
            before = -1.0 if reasoning else -0.5
            tokens.append(
                Token(
                    word,
                    before,
                    before + correction,
                    (correction, 0.0),
                    False,
                    (0.5, 0.0, -0.25),
                    0.75,
                    reasoning=reasoning,
                )
            )
        return tokens[:1] if branch == self.failing else tokens

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
