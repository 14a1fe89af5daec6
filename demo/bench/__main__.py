"""python -m demo.bench: measure the speed on this machine beside other methods, in one run and one
table.

Parts: `pair`, one pair against plain `generate`, the naive method and a single sequence; `context`,
long contexts; `load`, many pairs at once against transformers' own continuous batching; `formats`,
on a CPU, what float32, bfloat16 and int8 cost; `tools`, other programs where they are installed:
saklas, and llama.cpp if a GGUF file is given.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from demo.bench.long_context import measure_prompt_lengths
from demo.bench.number_formats import evaluations_of, measure_formats
from demo.bench.other_tools import LLAMA_CPP, SAKLAS
from demo.bench.pair import MESSAGES, Bench, add_model_options, make_bench, measure, summary
from demo.bench.report import with_earlier, write_json, write_speed_report
from demo.engine.forward.selection import difference
from demo.engine.transformers_engine import TransformersEngine
from demo.utils.cli import command
from demo.utils.errors import UserError
from demo.utils.resource_usage import peak_mib

PARTS = ("pair", "context", "load", "formats", "tools")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    options = _parser().parse_args(arguments)
    figures: dict[str, Any] = {}
    for figures in run(options):
        if options.json:
            write_json(options.json, figures)
        if options.write:
            by_model = with_earlier(options.write, figures["about"]["model"], figures)
            write_speed_report(options.write, by_model)
    print("\n".join(summary_lines(figures)))


def run(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measure the parts that were asked for.

    Yields:
        The figures so far, after each part: a later part may need more memory than there is.

    Raises:
        UserError: a model, an axis or an evaluation cannot be read.
    """
    parts = options.only or PARTS
    evaluations = evaluations_of(options.evaluated)  # before anything is measured: it may raise
    bench = make_bench(options)
    on_cpu, source = bench.model.device.type == "cpu", str(bench.model.model.name_or_path)
    figures: dict[str, Any] = {"about": _about(bench, options)}
    if "pair" in parts:
        figures["pair"] = summary(measure(bench, options.turns, options.repeats), options.turns)
        yield figures
    if "context" in parts:
        figures["context"] = measure_prompt_lengths(bench)
        yield figures
    figures["about"]["peak_mib"] = peak_mib()
    del bench  # the other parts load the model themselves
    gc.collect()
    if "load" in parts:
        figures["load"] = _engine_load(options)
        yield figures
    if "formats" in parts and on_cpu:
        figures["formats"] = measure_formats(options, options.repeats)
        yield figures
    if "tools" in parts:
        models = {SAKLAS: source} | ({LLAMA_CPP: str(options.gguf)} if options.gguf else {})
        figures["tools"] = {
            tool.name: tool.measure(model, MESSAGES[0], options.tokens) for tool, model in models.items()
        }
    if evaluations:
        figures["evaluations"] = evaluations
    yield figures


def _about(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    modules = TransformersEngine(bench.model, bench.axis, fused=False).forward
    return {
        "model": bench.model.slug,
        "device": str(bench.model.device),
        "dtype": bench.model.dtype_reason,
        "forward": bench.engine.forward.name,
        "tokens": options.tokens,
        "repeats": options.repeats,
        "logit_difference": difference(bench.model, bench.engine.forward, modules),
    }


def _engine_load(options: argparse.Namespace) -> dict[str, Any]:
    """Run the load test in a new process: its main thread must not have computed anything."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "load.json"
        flags = ["--model", options.model, "--device", options.device, "--dtype", options.dtype]
        flags += ["--tokens", str(options.tokens), "--json", str(target)]
        flags += ["--axis", options.axis] if options.axis else []
        command_line = [sys.executable, "-m", "demo.bench.engine_load", *flags]
        if subprocess.run(command_line, stdout=subprocess.DEVNULL, check=False).returncode:
            raise UserError(
                f"The load test has failed; run `python {' '.join(command_line[1:])}` to see why."
            )
        found: dict[str, Any] = json.loads(target.read_text())
        return found


def summary_lines(figures: dict[str, Any]) -> Iterator[str]:
    """The figures as lines for the terminal."""
    yield ", ".join(f"{name} {value}" for name, value in figures["about"].items())
    for name, value in figures.get("pair", {}).items():
        yield f"  {name:18}" + (f"{value:9.1f} ms" if name.endswith("_ms") else f"{value:9.2f} x")
    for context in figures.get("context", []):
        yield "  context: " + ", ".join(f"{name} {value:.4g}" for name, value in context.items())
    for pairs, load in figures.get("load", {}).get("pairs", {}).items():
        yield f"  {pairs:>2} pairs: " + ", ".join(f"{name} {value:.4g}" for name, value in load.items())
    if "pairs16_vs_one" in figures.get("load", {}):
        yield f"  pairs16_vs_one    {figures['load']['pairs16_vs_one']:9.2f} x"
    for name, value in figures.get("load", {}).get("long_chat", {}).items():
        yield f"  long chat, {name} {value:.4g}"
    for name, value in figures.get("formats", {}).items():
        yield f"  {name}: {value}"
    for name, value in figures.get("tools", {}).items():
        yield f"  {name}: {value}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.bench", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--only", action="append", choices=PARTS, help="run this part; may be repeated")
    parser.add_argument(
        "--repeats", type=int, default=5, help="number of conversations (default: %(default)s)"
    )
    parser.add_argument(
        "--turns", type=int, default=8, choices=range(2, 9), help="of a conversation (default: %(default)s)"
    )
    parser.add_argument("--gguf", type=Path, help="the model as a GGUF file, for llama.cpp")
    parser.add_argument(
        "--evaluated",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="also show this folder's evaluation.json; repeated, for evaluations in several formats",
    )
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write speed.md, its chart and speed.json there"
    )
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
