"""docs/speed.md: the figures of one run of the bench, and a picture of the crowd."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MEANING = {
    "pair_vs_plain": "a pair's step ÷ one step of plain `generate`, one row",
    "pair_vs_single": "a pair's step ÷ a single row's, both by this engine",
    "turn8_vs_naive": "the naive side by side of turn 8 ÷ ours",
    "ttft8_vs_ttft1": "time to the first token in turn 8 ÷ in turn 1",
    "plain_step_ms": "one step of plain `generate`, ms",
    "single_step_ms": "one step of a single row by this engine, ms",
    "pair_step_ms": "one step of a pair, ms",
    "ttft1_ms": "a pair's first token, turn 1, ms",
    "ttft8_ms": "a pair's first token, turn 8, ms",
}


def write_report(folder: Path, figures: dict[str, Any]) -> list[Path]:
    """Write speed.json, speed.md and, where a crowd was measured, speed.svg; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "speed.json", folder / "speed.md"]
    written[0].write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    written[1].write_text("\n".join(_lines(figures)) + "\n", encoding="utf-8")
    if "crowd" in figures:
        _picture(figures["crowd"]["pairs"], folder / "speed.svg")
        written.append(folder / "speed.svg")
    return written


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    about = figures["about"]
    yield "# How fast"
    yield ""
    yield (
        f"{about['model']} on {about['device']}; {about['dtype']}; forward pass: {about['forward']}, whose logits differ from those of the "
        f"model's own modules by at most {about['logit_difference']:.1g} of the largest; replies of {about['tokens']} tokens. Made by `python -m demo.bench --write docs`; ratios are of times taken in one run, by turns, and medians. Times differ "
        "from machine to machine: run it on yours."
    )
    yield ""
    if "pair" in figures:
        yield from table(
            ("one pair", "", ""),
            [(f"`{n}`", f"{figures['pair'][n]:.2f}", m) for n, m in _MEANING.items() if n in figures["pair"]],
        )
    if "context" in figures:
        yield from table(
            ("prompt tokens", "first token, s", "step of the pair, ms", "KV cache, MiB"),
            [
                (
                    f"{r['prompt_tokens']}",
                    f"{r['first_token_s']:.2f}",
                    f"{r['step_ms']:.1f}",
                    f"{r['kv_mib']:.0f}",
                )
                for r in figures["context"]
            ],
        )
    if "crowd" in figures:
        yield from _crowd(figures["crowd"])
    if "llama.cpp" in figures:
        yield "llama.cpp, one row: " + ", ".join(f"{n} {v}" for n, v in figures["llama.cpp"].items())


def _crowd(crowd: dict[str, Any]) -> Iterator[str]:
    yield (
        "Pairs that all arrive within one second, with prompts of about 64 tokens. *Library*: transformers' continuous batching with "
        "as many rows, uncapped, nothing read."
    )
    yield ""
    yield from table(
        ("pairs", "tokens/s", "library", "first token p50, s", "p95, s", "step p50, ms", "p95, ms"),
        [
            (
                pairs,
                f"{row['tokens_per_s']:.0f}",
                f"{row['library_tokens_per_s']:.0f}",
                f"{row['first_token_p50_s']:.2f}",
                f"{row['first_token_p95_s']:.2f}",
                f"{row['step_p50_ms']:.0f}",
                f"{row['step_p95_ms']:.0f}",
            )
            for pairs, row in crowd["pairs"].items()
        ],
    )
    if "room16_vs_one" in crowd:
        yield f"`room16_vs_one`, tokens per second of 16 pairs ÷ of one: {crowd['room16_vs_one']:.2f}."
        yield ""
    yield "![Tokens per second and time to the first token by number of pairs](speed.svg)"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _picture(crowd: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = [int(name) for name in crowd]
    panels = (
        ("tokens per second", {"tokens_per_s": "this engine, capped and read", "library_tokens_per_s": "library, neither"}),
        ("seconds to the first token", {"first_token_p50_s": "median", "first_token_p95_s": "95th percentile"}),
    )  # fmt: skip
    style: dict[Any, Any] = {"svg.hashsalt": "speed", "svg.fonttype": "path", "font.size": 9}
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
        for panel, (unit, names) in zip(axes, panels, strict=True):
            for (name, label), mark in zip(names.items(), ("o-", "s--"), strict=True):
                panel.plot(pairs, [row[name] for row in crowd.values()], mark, label=label)
            panel.set(xscale="log", xlabel="pairs at once", ylabel=unit, ylim=(0, None))
            panel.set_xticks(pairs, [str(number) for number in pairs])
            panel.minorticks_off()
            panel.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
