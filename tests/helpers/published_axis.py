"""A small axis laid out like the published ones, and checks for tests of the import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demo.axis.importer.build import ImportOptions, import_axis
from demo.utils.errors import UserError

LAYERS, HIDDEN, ROLES = 8, 24, 6
NAMES = ("bard", "ghost", "hermit", "pirate", "oracle", "reviewer")


def vector_name(layer: int) -> str:
    """Name of a layer's capping vector, as published."""
    return f"layer_{layer}/contrast_role_pos3_default1"


def cap_at(layer: int, percentile: float) -> float:
    """A ceiling on role-wardness, the same in every window, as published."""
    return -1.0 - layer / 8 + percentile


def experiment(first: int, end: int, percentile: float, **more) -> dict:
    """An experiment that caps layers `first` to `end` - 1."""
    steps = [{"vector": vector_name(layer), "cap": cap_at(layer, percentile)} for layer in range(first, end)]
    return {"id": f"layers_{first}:{end}-p{percentile}", "interventions": steps, **more}


class Published:
    """The content of a published folder, for a small model."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.roles = {name: torch.randn(LAYERS, HIDDEN, generator=generator).bfloat16() for name in NAMES}
        self.mean = torch.stack([vector.float() for vector in self.roles.values()]).mean(0)
        away = torch.randn(LAYERS, HIDDEN, generator=generator)
        self.default = (self.mean + 2 * away).bfloat16()
        self.axis = (self.default.float() - self.mean).bfloat16()
        self.config = {
            "vectors": {vector_name(n): {"vector": -self.axis[n], "layer": n} for n in range(LAYERS)},
            "experiments": [experiment(*window) for window in ((2, 5, 0.25), (3, 6, 0.25), (2, 5, 0.01))],
        }

    def write(self, folder: Path, *leave_out: str) -> Path:
        """Write the folder as on the hub, without the files named in `leave_out`."""
        content = {"assistant_axis": self.axis, "default_vector": self.default, "capping_config": self.config}
        (folder / "role_vectors").mkdir(parents=True)
        for name, value in content.items():
            if name not in leave_out:
                torch.save(value, folder / f"{name}.pt")
        if "role_vectors" not in leave_out:
            for name, vector in self.roles.items():
                torch.save(vector, folder / "role_vectors" / f"{name}.pt")
        return folder


def write_caps(folder: Path) -> Path:
    """A file for --caps with ceilings at layers 3 and 4."""
    path = folder / "caps.json"
    path.write_text(json.dumps({"3": -1.5, "4": 2}))
    return path


def save(value: object, path: Path) -> Path:
    """Save `value` with torch and return the path."""
    torch.save(value, path)
    return path


def refused(words: str, source: Path, options: ImportOptions | None = None) -> str:
    """Check that the import fails with a one-line message that matches `words`; return the message."""
    with pytest.raises(UserError, match=words) as error:
        import_axis(source, options)
    assert "\n" not in str(error.value)
    return str(error.value)
