"""What the engine's reading of a finished chat says of its replies."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from threading import Event as CancelFlag

from demo.conversation.turns import Reply
from demo.engine.protocol import Cap, ReadToken, Token


def noting_messages(chunks: Iterator[list[ReadToken]], seen: set[int]) -> Iterator[list[ReadToken]]:
    """The same chunks; `seen` collects the messages that have tokens in them."""
    for chunk in chunks:
        seen.update(token.message for token in chunk)
        yield chunk


def replies_read(
    chunks: Iterator[list[ReadToken]], first: int, probe: int, cap: Cap | None, cancel: CancelFlag
) -> Iterator[tuple[int, Reply]]:
    """The turns of a chat that is being read and their replies, each when the next turn begins.

    A turn in the middle of which the reading was cancelled is not among them.
    """
    layers = cap.layers if cap else ()
    reply, number = Reply(0), -1
    user: list[float] = []
    for token in (token for chunk in chunks for token in chunk if token.message >= first):
        turn, is_reply = divmod(token.message - first, 2)
        if turn != number:
            if number >= 0:
                yield number, _finished(reply, user)
            reply, user, number = Reply(0), [], turn
        if is_reply:
            lifts = tuple(token.after[layer] - token.before[layer] for layer in layers)
            before, after = token.before[probe], token.after[probe]
            reply.add(
                Token(
                    token.text,
                    before,
                    after,
                    lifts,
                    False,
                    token.coordinates,
                    reasoning=token.reasoning,
                    along=token.along,
                )
            )
        else:
            user.append(token.before[probe])
    if number >= 0 and not cancel.is_set():
        yield number, _finished(reply, user)


def with_unread(read: Reply, text: Reply | None) -> Reply:
    """A reply that was read, with the reasoning or the answer that the chat template did not write."""
    if text is None:
        return read
    missing = {kind for kind in (True, False) if not any(token.reasoning == kind for token in read.tokens)}
    unread = [token for token in text.tokens if token.reasoning in missing]
    if not unread:
        return read
    tokens = sorted([*unread, *read.tokens], key=lambda token: not token.reasoning)
    return Reply(len(tokens), tokens, read.finish, read.user_projection)


def close(chunks: Iterator[list[ReadToken]]) -> None:
    """End a reading, so that the engine computes no more of it."""
    if isinstance(chunks, Generator):
        chunks.close()


def _finished(reply: Reply, user: list[float]) -> Reply:
    reply.user_projection = sum(user) / len(user) if user else None
    reply.limit, reply.finish = len(reply.tokens), "stop"
    return reply
