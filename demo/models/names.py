"""What identifies a model, and the values of --axis that stand for its own axis. It imports nothing heavy."""

from __future__ import annotations

from typing import Protocol

# The model's own axis: without the network, or from the hub if need be.
AUTO, HUB = "auto", "hub"


class Named(Protocol):
    """What identifies a model. See `demo.models.loading.LoadedModel`."""

    @property
    def spec(self) -> str: ...
    @property
    def slug(self) -> str: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def digest(self) -> str | None: ...
    @property
    def base(self) -> bool:
        """Whether it is given plain transcripts, which takes an axis of its own."""
        ...
