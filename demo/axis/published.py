"""What is published about the three models of the Assistant Axis paper (arXiv 2601.10387).

It lists where the published axes are, which layers are read and capped, and which files are recognised
by their content. Layers are decoder layers counted from 0; the activation is the output of the layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Side = Literal["assistant", "role"]

DATASET = "lu-christina/assistant-axis-vectors"  # on the Hugging Face hub, MIT

# Ceilings on the unit contrast vector, which points toward the roles: 25th percentile of role-wardness
# over rollouts. Source: the per-layer caps of Neuronpedia's Assistant Axis demo (layers 32 to 55 of
# Llama 3.3 70B). At layer 40 the paper's authors give the same 25th percentile.
_NEURONPEDIA_CAPS = {
    32: -1.234, 33: -1.570, 34: -2.219, 35: -1.703, 36: -1.797, 37: -1.742, 38: -1.766, 39: -1.508,
    40: -1.875, 41: -1.664, 42: -1.602, 43: -1.469, 44: -1.688, 45: -1.875, 46: -1.898, 47: -1.859,
    48: -1.914, 49: -1.914, 50: -1.820, 51: -1.922, 52: -1.977, 53: -1.828, 54: -1.594, 55: -1.984,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishedModel:
    """One model with a published axis.

    Attributes:
        name: As the paper calls it.
        hub_ids: The checkpoints that the axis was made from.
        folder: Its folder in `DATASET`.
        layers: L in the shape [L, D] of every published tensor.
        hidden_size: D in that shape.
        probe_layer: Where the paper reads projections (its target layer).
        experiment: Id of the recommended capping experiment, a half-open slice of layers and a percentile.
        band: The layers of that experiment, first and last inclusive; None where no capping was published.
        caps: Ceilings published elsewhere, layer -> raw projection on the role-ward unit vector.
    """

    name: str
    hub_ids: tuple[str, ...]
    folder: str
    layers: int
    hidden_size: int
    probe_layer: int
    experiment: str | None = None
    band: tuple[int, int] | None = None
    caps: Mapping[int, float] = field(default_factory=dict)

    @property
    def model_id(self) -> str:
        """Hub id of the model."""
        return self.hub_ids[0]


GEMMA = PublishedModel("Gemma-2-27B", ("google/gemma-2-27b-it",), "gemma-2-27b", 46, 4608, 22)

QWEN = PublishedModel(
    "Qwen3-32B", ("Qwen/Qwen3-32B",), "qwen-3-32b", 64, 5120, 32, "layers_46:54-p0.25", (46, 53)
)

LLAMA = PublishedModel(
    "Llama-3.3-70B",
    ("meta-llama/Llama-3.3-70B-Instruct",),
    "llama-3.3-70b",
    80,
    8192,
    40,
    "layers_56:72-p0.25",
    (56, 71),
    _NEURONPEDIA_CAPS,
)

MODELS = (GEMMA, QWEN, LLAMA)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A published file that can be recognised by its content.

    Attributes:
        sha256: The first 16 hex digits of its SHA-256; no more of it was published.
        what: What the file is.
        side: Where its vectors point.
        model: The model it belongs to.
        caps_apply: Whether the model's `caps` belong to these vectors.
    """

    sha256: str
    what: str
    side: Side
    model: PublishedModel
    caps_apply: bool = False


KNOWN_FILES = (
    # Neuronpedia's data file: the server takes its negative as the Assistant's direction.
    KnownFile("76372af08216632b", "Neuronpedia's contrast_vectors.pt of Llama-3.3-70B", "role", LLAMA, True),
    KnownFile("a207fe7a36563280", "the published assistant_axis.pt of Qwen3-32B", "assistant", QWEN),
    # Its vectors are exactly the negative of the axis.
    KnownFile("6aec1220487473aa", "the published capping_config.pt of Qwen3-32B", "role", QWEN),
)


def known_file(sha256: str) -> KnownFile | None:
    """The published file with this SHA-256 (all hex digits), or None."""
    return next((known for known in KNOWN_FILES if sha256.startswith(known.sha256)), None)


def match_model(spec: str) -> PublishedModel | None:
    """The published model that a model id, folder or path refers to, or None. Only its last part counts.

    Qwen/Qwen3-32B, qwen-3-32b and /models/Qwen3-32B-AWQ all refer to Qwen3-32B: parts that follow the name
    are ignored.
    """
    last = _parts(re.split(r"[/\\:]", spec.rstrip("/\\"))[-1])
    for model in MODELS:
        for name in (model.name, model.folder, *model.hub_ids):
            wanted = _parts(name.rpartition("/")[2])
            if last[: len(wanted)] == wanted:
                return model
    return None


def _parts(name: str) -> list[str]:
    """The runs of letters and of digits in a name, which are the same for qwen3-32b and qwen-3-32b."""
    return re.findall(r"[a-z]+|\d+", name.lower())
