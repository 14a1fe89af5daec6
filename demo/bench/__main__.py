"""python -m demo.bench: how fast it is on this machine, against other ways, in one run and one table.

Parts: one pair against plain `generate`, the naive way and a single row; long contexts; a crowd of pairs against transformers' own
continuous batching; llama.cpp where it is installed and a GGUF file is given.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.bench.long_context import contexts
from demo.bench.pair import add_model_options, llama_cpp, make_bench, measure, summary
from demo.bench.report import write_report
from demo.engine.forward.selection import difference
from demo.engine.transformers_engine import TransformersEngine
from demo.utils.errors import UserError
from demo.utils.resource_usage import peak_mib

PARTS = ("pair", "context", "crowd", "llama.cpp")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        figures = run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(table(figures)))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.write:
        for path in write_report(options.write, figures):
            print(f"wrote {path}")
    return 0


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the parts that were asked for. Raises UserError."""
    parts = options.only or PARTS
    bench = make_bench(options)
    figures: dict[str, Any] = {
        "about": {
            "model": bench.model.spec,
            "device": str(bench.model.device),
            "dtype": bench.model.dtype_reason,
            "forward": bench.engine.forward.name,
            "tokens": options.tokens,
            "repeats": options.repeats,
            "logit_difference": difference(
                bench.model,
                bench.engine.forward,
                TransformersEngine(bench.model, bench.axis, lean=False).forward,
            ),
        }
    }
    if "pair" in parts:
        figures["pair"] = summary(measure(bench, options.turns, options.repeats), options.turns)
    if "context" in parts:
        figures["context"] = contexts(bench)
    figures["about"]["peak_mib"] = peak_mib()
    if "crowd" in parts:
        figures["crowd"] = _crowd(options)
    if "llama.cpp" in parts and options.gguf:
        figures["llama.cpp"] = llama_cpp(options.gguf, options.tokens)
    return figures


def _crowd(options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own, whose main thread has computed nothing, as the page's has not."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "crowd.json"
        flags = ["--model", options.model, "--device", options.device, "--dtype", options.dtype]
        flags += ["--tokens", str(options.tokens), "--json", str(target)]
        flags += ["--axis", options.axis] if options.axis else []
        command = [sys.executable, "-m", "demo.bench.engine_load", *flags]
        if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise UserError(f"The crowd could not be measured; run {' '.join(command[1:])} to see why.")
        found: dict[str, Any] = json.loads(target.read_text())
        return found


def table(figures: dict[str, Any]) -> Iterator[str]:
    """Lines to print."""
    yield ", ".join(f"{name} {value}" for name, value in figures["about"].items())
    for name, value in figures.get("pair", {}).items():
        yield f"  {name:18}" + (f"{value:9.1f} ms" if name.endswith("_ms") else f"{value:9.2f} x")
    for row in figures.get("context", []):
        yield "  context: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items())
    for pairs, row in figures.get("crowd", {}).get("pairs", {}).items():
        yield f"  {pairs:>2} pairs: " + ", ".join(f"{name} {value:.4g}" for name, value in row.items())
    if "room16_vs_one" in figures.get("crowd", {}):
        yield f"  room16_vs_one     {figures['crowd']['room16_vs_one']:9.2f} x"
    for name, value in figures.get("llama.cpp", {}).items():
        yield f"  llama.cpp: {name} {value}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.bench", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--only", action="append", choices=PARTS, help="this part; may be repeated")
    parser.add_argument("--repeats", type=int, default=5, help="conversations (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=8, choices=range(2, 9), help="default: %(default)s")
    parser.add_argument("--gguf", type=Path, help="the model as a GGUF file, for llama.cpp")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write speed.md, its picture and speed.json there"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
