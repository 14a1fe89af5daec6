"""python -m demo.bench.sizing: GPU memory of large models, and how many conversations fit.

Arithmetic from the models' shapes, not a measurement. The weights are spread over the GPUs. Of what
vLLM may use of each GPU (--gpu-memory), a reserve is kept for activations; the rest holds keys and
values, for the two replies of a pair.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from demo.utils.cli import command
from demo.utils.json_files import read_object
from demo.utils.markdown import markdown_table, replaced
from demo.utils.paths import ROOT

SHAPES, DOCUMENT = ROOT / "assets" / "model_shapes.json", ROOT / "docs" / "large-models.md"

BLOCK, COMMAND = "sizing", "python -m demo.bench.sizing --write"  # in DOCUMENT

GIB = 2**30

_SHARE = 0.9  # of each GPU's memory, vLLM's default

_RESERVE_GIB = 1.5  # of each GPU, for activations and the framework

_CONTEXT = 4096  # tokens of each reply's conversation

_KV_BYTES = 2  # of a number in the cache


@dataclass(frozen=True)
class Shape:
    """A dense decoder with gated MLPs, as config.json describes it."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    tied: bool

    @property
    def parameters(self) -> int:
        """Parameters of all matrices; norms and biases are too small to matter."""
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        mlp = 3 * self.hidden * self.intermediate
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * (attention + mlp) + embeddings

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values at all decoder layers."""
        return 2 * self.layers * self.kv_heads * self.head_size * _KV_BYTES


@dataclass(frozen=True)
class Setup:
    """A model on a number of GPUs.

    Attributes:
        model: Name of its shape.
        weights_bits: Bits of each weight.
        cards: Number of GPUs.
        gib: Memory of each GPU, GiB.
    """

    model: str
    weights_bits: int
    cards: int
    gib: int


def pairs(shape: Shape, setup: Setup) -> int:
    """The number of side-by-side conversations that fit at once."""
    weights = shape.parameters * setup.weights_bits / 8
    left = setup.cards * (setup.gib * _SHARE - _RESERVE_GIB) * GIB - weights
    return max(0, int(left / shape.kv_bytes / (2 * _CONTEXT)))


def lines(content: dict[str, Any]) -> Iterator[str]:
    """The two tables, from the content of assets/model_shapes.json."""
    shapes = {name: Shape(**shape) for name, shape in content["models"].items()}
    yield from markdown_table(
        (
            "model",
            "parameters, billions",
            "weights GiB, 16 bits",
            "8 bits",
            "4 bits",
            "KV cache KiB per token",
        ),
        [_shape_row(name, shape) for name, shape in shapes.items()],
    )
    yield ""
    yield from markdown_table(
        ("setup", "weights per card, GiB", f"pairs at once, {_CONTEXT} tokens each"),
        [_setup_row(shapes[entry["model"]], Setup(**entry)) for entry in content["setups"]],
    )


def _shape_row(name: str, shape: Shape) -> Sequence[str]:
    sizes = [f"{shape.parameters * bits / 8 / GIB:.0f}" for bits in (16, 8, 4)]
    return name, f"{shape.parameters / 1e9:.1f}", *sizes, f"{shape.kv_bytes / 1024:.0f}"


def _setup_row(shape: Shape, setup: Setup) -> Sequence[str]:
    weights = shape.parameters * setup.weights_bits / 8 / setup.cards / GIB
    where = f"{setup.model}, {setup.weights_bits} bits, {setup.cards} × {setup.gib} GiB"
    return where, f"{weights:.0f}", f"{pairs(shape, setup)}"


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and put them into the document if asked."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.sizing", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/large-models.md")
    options = parser.parse_args(arguments)
    text = "\n".join(lines(read_object(SHAPES, "restore it from the repository")))
    print(text)
    if options.write:
        document = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(replaced(document, BLOCK, COMMAND, text), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
