"""The sequences that have a cache slot, and the forward passes that they run together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from demo.engine.forward.forward_pass import Chunk, ChunkReading, ForwardPass
from demo.engine.kv_cache import SequenceCache, common_prefix
from demo.engine.prefix_cache import CachedSequence, PrefixCache
from demo.engine.sampling import Likeliest, likeliest, sample_batch
from demo.engine.sequence import Status, TokenSequence


class RunningBatch:
    """The running sequences of all clients, each with a cache slot. Used by one thread at a time."""

    def __init__(self, forward: ForwardPass, prefix_cache: PrefixCache, cache: SequenceCache) -> None:
        self.sequences: list[TokenSequence] = []
        self.forward = forward
        self._prefix_cache, self._cache = prefix_cache, cache

    def add(self, sequence: TokenSequence) -> None:
        """Give a sequence a slot and fill in what is known of its prompt.

        Of a running sequence that has just read the same prompt all is taken, with the logits: then both
        replies begin with the same bits, which another pass might round otherwise.
        """
        sequence.slot, sequence.status = len(self.sequences), Status.RUNNING
        self._cache.open(sequence.slot, sequence.most_tokens)
        twin = self._twin(sequence)
        self.sequences.append(sequence)  # before its memory is taken, so that a failure closes the slot
        if twin is not None:
            self._cache.copy(twin.slot, sequence.slot, twin.tokens_run)
            sequence.start_after(list(twin.before))
            sequence.logits = twin.logits
        else:
            self._fill_in_prefix(sequence)
        if not self._cache.can_be_cut:
            sequence.pause_at = sequence.chat.stable

    def _fill_in_prefix(self, sequence: TokenSequence) -> None:
        """Fill in the longest known prefix of a prompt.

        It may come from the branch's last turn, from another branch that begins alike, or from a sequence
        that is running now.
        """
        request = sequence.request
        cached, known = self._prefix_cache.longest(request.branch, sequence.chat.ids, request.in_prompt)
        other, shared = self._most_alike(sequence)
        if other is not None and shared > known:
            self._cache.copy(other.slot, sequence.slot, shared)
            sequence.start_after(other.before[:shared])
        elif cached is not None and known:
            self._cache.load(sequence.slot, cached.state, known)
            sequence.start_after(cached.before[:known])

    def _twin(self, sequence: TokenSequence) -> TokenSequence | None:
        """A running sequence that has read exactly this prompt, as this one would, and nothing more."""
        return next((other for other in self.sequences if other.has_read_all_of(sequence)), None)

    def _most_alike(self, sequence: TokenSequence) -> tuple[TokenSequence | None, int]:
        """The running sequence with the longest prefix in common with this prompt, and its length.

        Only sequences under the same intervention count. At least one token is left to run, for its logits.
        """
        best, most = None, 0
        for other in self.sequences:
            if other is not sequence and other.request.in_prompt == sequence.request.in_prompt:
                ids = other.ids_run[: other.shared_run]
                shared = min(common_prefix(ids, sequence.chat.ids), len(sequence.chat.ids) - 1)
                usable = self._cache.can_be_cut or shared == other.tokens_run
                if usable and shared > most:
                    best, most = other, shared
        return best, most

    def sample(self, sequences: Sequence[TokenSequence]) -> None:
        """Sample the next token of every sequence that has logits."""
        ready = [sequence for sequence in sequences if sequence.logits is not None]
        if ready:
            logits = torch.stack([sequence.logits for sequence in ready if sequence.logits is not None])
            choices = sample_batch(logits, [sequence.sampling_step() for sequence in ready])
            plain = self._plain_likeliest(ready)
            for sequence, choice in zip(ready, choices, strict=True):
                sequence.take(choice, plain.get(id(sequence), ()))
                sequence.follow()

    @staticmethod
    def _plain_likeliest(sequences: Sequence[TokenSequence]) -> dict[int, Likeliest]:
        """How the unsteered model would go on, by the id of the sequence whose words it reads along."""
        read = [
            (sequence, sequence.plain.logits)
            for sequence in sequences
            if sequence.plain is not None and sequence.plain.logits is not None
        ]
        if not read:
            return {}
        found = likeliest(torch.stack([logits for _, logits in read]))
        return {id(sequence): one for (sequence, _), one in zip(read, found, strict=True)}

    def run(self, work: Sequence[tuple[TokenSequence, Chunk]]) -> list[ChunkReading]:
        """Run one forward pass. Sequences whose chunk asks for logits have them afterwards."""
        logits, readings = self.forward.run([chunk for _, chunk in work], self._cache)
        remaining = iter(logits)
        for sequence, chunk in work:
            if chunk.last:
                sequence.logits = next(remaining)
        return readings

    def remove(self, sequence: TokenSequence, *, keep: bool) -> None:
        """Free the sequence's slot.

        Args:
            keep: store its state in the prefix cache, unless the sequence has failed.
        """
        sequence.status = Status.FINISHED
        if sequence in self.sequences:
            self.sequences.remove(sequence)
            # NaN may be left behind, which masks do not hide from the next sequence in this memory.
            if sequence.fault is not None or sequence.is_broken or _has_nan(sequence.logits):
                self._cache.clear(sequence.slot)
            elif keep and sequence.tokens_run:
                self._keep(sequence)
            self._cache.close(sequence.slot)
            self._close_gaps()

    def keep_state(self, sequence: TokenSequence) -> None:
        """Store the state before the header of the reply, from which another reply can begin.

        Only states that cannot be cut back need this.
        """
        if sequence.pause_at and sequence.tokens_run == sequence.pause_at > sequence.reused:
            self._keep(sequence)

    def _keep(self, sequence: TokenSequence) -> None:
        """Store what the cache slot holds, as far as later turns can use it, in the prefix cache."""
        count, request = sequence.shared_run, sequence.request
        if count < sequence.tokens_run and not self._cache.can_be_cut:
            return  # what was kept before the reply serves them
        state = self._cache.saved(sequence.slot, count)
        entry = CachedSequence(sequence.ids_run[:count], state, sequence.before[:count], request.in_prompt)
        self._prefix_cache.put(request.branch, entry)

    def _close_gaps(self) -> None:
        """Give sequences free slots, so that the slots of n sequences are the first n."""
        free = sorted(set(range(len(self.sequences))) - {sequence.slot for sequence in self.sequences})
        high = [sequence for sequence in self.sequences if sequence.slot >= len(self.sequences)]
        for slot, sequence in zip(free, high, strict=True):
            self._cache.move(sequence.slot, slot, sequence.tokens_run)
            sequence.slot = slot


def _has_nan(logits: Tensor | None) -> bool:
    return logits is not None and bool(logits.isnan().any())
