"""Live microscope for persona drift: pair, cap, project, show.

The names in `__all__` are the public interface; see `demo.library` and docs/library.md. They are imported
when they are first used, so that `import demo` and the page's own modules start without PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demo.axis.directions import all_directions
    from demo.axis.files import load_axis, save_axis
    from demo.conversation.comparison import compare
    from demo.conversation.seeds import reply_means, seed_gap
    from demo.conversation.session_file import Recording
    from demo.conversation.settings import CapChoice
    from demo.engine.protocol import Sampling, Steer
    from demo.engine.transformers_engine import TransformersEngine
    from demo.extraction.plan import Preset
    from demo.library import Chat, extract_axis, open_session, read, save_session
    from demo.models.loading import load_model
    from demo.utils.errors import UserError

__all__ = [
    "CapChoice",
    "Chat",
    "Preset",
    "Recording",
    "Sampling",
    "Steer",
    "TransformersEngine",
    "UserError",
    "all_directions",
    "compare",
    "extract_axis",
    "load_axis",
    "load_model",
    "open_session",
    "read",
    "reply_means",
    "save_axis",
    "save_session",
    "seed_gap",
]

_HOMES = {
    "CapChoice": "demo.conversation.settings",
    "Preset": "demo.extraction.plan",
    "Recording": "demo.conversation.session_file",
    "Sampling": "demo.engine.protocol",
    "Steer": "demo.engine.protocol",
    "TransformersEngine": "demo.engine.transformers_engine",
    "UserError": "demo.utils.errors",
    "all_directions": "demo.axis.directions",
    "compare": "demo.conversation.comparison",
    "load_axis": "demo.axis.files",
    "load_model": "demo.models.loading",
    "reply_means": "demo.conversation.seeds",
    "save_axis": "demo.axis.files",
    "seed_gap": "demo.conversation.seeds",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'demo' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "demo.library")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
