"""The documents made from figures: docs/speed.md with its chart, and docs/engines.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demo.evaluation.models import CAP_ROWS, evaluations_table
from demo.utils.markdown import markdown_table

_MEANING = {
    "pair_vs_plain": "one step of a pair ÷ one step of plain `generate` with one sequence",
    "pair_vs_single": "one step of a pair ÷ one step of a single sequence, both by this engine",
    "turn8_vs_naive": "turn 8 by the naive side-by-side method ÷ turn 8 by this engine",
    "ttft8_vs_ttft1": "time to the first token in turn 8 ÷ in turn 1",
    "plain_step_ms": "one step of plain `generate`, ms",
    "single_step_ms": "one step of a single sequence by this engine, ms",
    "pair_step_ms": "one step of a pair, ms",
    "ttft1_ms": "time to a pair's first token, turn 1, ms",
    "ttft8_ms": "time to a pair's first token, turn 8, ms",
}

# How the table of all models shows their figures: title, place in the figures of a model, digits.
_FIRST = ""  # the first key there: of the formats the usual one, of the shifts int8 against it
_SHIFTS = ("formats", "shifts", _FIRST)
_SIZES_ROWS: tuple[tuple[str, tuple[str, ...], int], ...] = (
    ("tokens of a reply", ("about", "tokens"), 0),
    ("step of plain `generate`, ms", ("pair", "plain_step_ms"), 1),
    ("step of a single sequence, ms", ("pair", "single_step_ms"), 1),
    ("step of a pair, ms", ("pair", "pair_step_ms"), 1),
    *((f"`{name}`", ("pair", name), 2) for name in _MEANING if not name.endswith("_ms")),
    ("tokens/s, one pair", ("load", "pairs", "1", "tokens_per_s"), 0),
    *((f"tokens/s, {n} pairs", ("load", "pairs", f"{n}", "tokens_per_s"), 0) for n in (16, 32)),
    ("tokens/s, 32 pairs by the library", ("load", "pairs", "32", "library_tokens_per_s"), 0),
    ("`pairs16_vs_one`", ("load", "pairs16_vs_one"), 2),
    ("8 pairs beside a long chat ÷ alone", ("load", "long_chat", "beside_vs_alone"), 2),
    ("step of a pair in int8 ÷ in the usual format", ("formats", "int8_vs_usual"), 2),
    ("step of a pair in int8 ÷ step of plain `generate`", ("formats", "int8_vs_plain"), 2),
    ("shift of a token in int8, mean", (*_SHIFTS, "token_shift_mean"), 3),
    ("shift of a token in int8, largest", (*_SHIFTS, "token_shift_max"), 3),
    ("likeliest token the same in int8, share", (*_SHIFTS, "greedy_same"), 3),
    ("perplexity of ordinary text, usual format", ("formats", "formats", _FIRST, "perplexity"), 2),
    ("perplexity of ordinary text, int8", ("formats", "formats", "int8", "perplexity"), 2),
)


def write_speed_report(folder: Path, by_model: dict[str, dict[str, Any]]) -> list[Path]:
    """Write speed.json, speed.md and, if the load test was run, speed.svg.

    Args:
        by_model: model -> figures. The document shows the first one in full.

    Returns:
        The paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "speed.json", folder / "speed.md"]
    write_json(written[0], by_model)
    written[1].write_text("\n".join(_speed_lines(by_model)) + "\n", encoding="utf-8")
    first = next(iter(by_model.values()))
    if "load" in first:
        _draw_load(first["load"]["pairs"], folder / "speed.svg")
        written.append(folder / "speed.svg")
    return written


def with_earlier(folder: Path, model: str, figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of all models in `folder`, with these parts of `model` instead of earlier ones."""
    file = folder / "speed.json"
    found: dict[str, dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found | {model: found.get(model, {}) | figures}


def write_engines_report(folder: Path, figures: dict[str, Any]) -> None:
    """Write engines.json and engines.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "engines.json", figures)
    (folder / "engines.md").write_text(engines_document(figures), encoding="utf-8")


def write_json(path: Path, figures: object) -> None:
    """Write figures as indented JSON."""
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _speed_lines(by_model: dict[str, dict[str, Any]]) -> Iterator[str]:
    figures = next(iter(by_model.values()))
    about = figures["about"]
    yield "# Speed"
    yield ""
    yield (
        f"{about['model']} on {about['device']}; {about['dtype']}; replies of {about['tokens']} tokens. "
        f"Forward pass: {about['forward']}; its logits differ from those of the model's own modules by at "
        f"most {about['logit_difference']:.1g} of the largest logit. Made by `python -m demo.bench --write "
        "docs`. The times of a table were taken in one run, in which the methods take turns; they are "
        "medians, and the ratios are ratios of medians. Times differ between machines: run the command on "
        "yours."
    )
    for part, lines in _PARTS.items():
        if part in figures:
            yield ""
            yield from lines(figures[part])
    if len(by_model) > 1:
        yield ""
        yield from _sizes_table(by_model)


def _sizes_table(by_model: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The main figures of all models, where they were measured."""
    yield "The same for other models, made by the same command with `--model`:"
    yield ""
    yield from markdown_table(
        ("", *by_model),
        [
            (title, *(_figure(found, place, digits) for found in by_model.values()))
            for title, place, digits in _SIZES_ROWS
        ],
    )


def _figure(figures: dict[str, Any], place: tuple[str, ...], digits: int) -> str:
    """The number at this place of the figures; "" where it was not measured."""
    value: Any = figures
    for key in place:
        found = value if isinstance(value, dict) else {}
        value = found.get(next(iter(found), key) if key == _FIRST else key)
    return "" if value is None else f"{value:.{digits}f}"


def _formats_lines(formats: dict[str, Any]) -> Iterator[str]:
    plain = formats.get("plain_step_ms")  # earlier versions did not measure it here
    yield (
        "What the number format of the weights costs (`--dtype`). The replies to the first message of every "
        "scenario, uncapped and capped, were written in the usual format and are read in each. Shifts are "
        "those of the projection at the probe layer, in axis units; *same token* is the share of "
        "places whose likeliest token is the same."
    )
    yield ""
    yield from markdown_table(
        (
            "format",
            "step of a pair, ms",
            "÷ step of plain `generate` in the first",
            "perplexity of ordinary text",
        ),
        [
            (
                name,
                f"{one['pair_step_ms']:.1f}",
                f"{one['pair_step_ms'] / plain:.2f}" if plain else "",
                f"{one['perplexity']:.2f}",
            )
            for name, one in formats["formats"].items()
        ],
    )
    yield ""
    yield from markdown_table(
        (
            "",
            "shift of a token, mean",
            "largest",
            "shift of a reply's mean, mean",
            "largest",
            "same token, %",
            "tokens",
        ),
        [
            (
                name,
                f"{one['token_shift_mean']:.3f}",
                f"{one['token_shift_max']:.3f}",
                f"{one['reply_shift_mean']:.3f}",
                f"{one['reply_shift_max']:.3f}",
                f"{100 * one['greedy_same']:.1f}",
                f"{one['tokens']}",
            )
            for name, one in formats["shifts"].items()
        ],
    )


def _evaluations_lines(evaluations: dict[str, dict[str, Any]]) -> Iterator[str]:
    first = next(iter(evaluations.values()))
    yield (
        "What `python -m demo.evaluation --dtype FORMAT` finds in each format, over "
        f"{first['susceptibility']['attempts']} attempts and {first['capability']['items']} questions: "
        "uncapped → capped, with 95% intervals."
    )
    yield ""
    yield from evaluations_table(list(evaluations.items()), CAP_ROWS)


def _tools_table(tools: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield (
        "Other programs with one sequence of the same model, without intervention. llama.cpp reads a GGUF "
        "file, whose weights are smaller."
    )
    yield ""
    yield from markdown_table(
        ("program", "one step, ms"),
        [
            (name, f"{one['step_ms']:.1f}" if "step_ms" in one else f"not measured: {one['not measured']}")
            for name, one in tools.items()
        ],
    )


def _pair_table(pair: dict[str, float]) -> Iterator[str]:
    return markdown_table(
        ("one pair", "value", "meaning"),
        [(f"`{name}`", f"{pair[name]:.2f}", meaning) for name, meaning in _MEANING.items() if name in pair],
    )


def _context_table(contexts: list[dict[str, float]]) -> Iterator[str]:
    return markdown_table(
        (
            "prompt tokens",
            "first token of a pair, s",
            "÷ one plain prompt",
            "step of a pair, ms",
            "KV cache, MiB",
        ),
        [
            (
                f"{one['prompt_tokens']:.0f}",
                f"{one['first_token_s']:.2f}",
                f"{one['pair_vs_plain_prompt']:.2f}",
                f"{one['step_ms']:.1f}",
                f"{one['kv_mib']:.0f}",
            )
            for one in contexts
        ],
    )


def _load_lines(load: dict[str, Any]) -> Iterator[str]:
    yield (
        "Load test of the engine: all pairs arrive within one second, with prompts of about 64 tokens. "
        "*Library* is transformers' continuous batching with as many sequences, uncapped and with no "
        "projections read."
    )
    yield ""
    yield from markdown_table(
        (
            "pairs",
            "tokens/s",
            "library tokens/s",
            "first token p50, s",
            "first token p95, s",
            "step p50, ms",
            "step p95, ms",
        ),
        [
            (
                pairs,
                f"{one['tokens_per_s']:.0f}",
                f"{one['library_tokens_per_s']:.0f}",
                f"{one['first_token_p50_s']:.2f}",
                f"{one['first_token_p95_s']:.2f}",
                f"{one['step_p50_ms']:.0f}",
                f"{one['step_p95_ms']:.0f}",
            )
            for pairs, one in load["pairs"].items()
        ],
    )
    if "pairs16_vs_one" in load:
        yield ""
        yield f"`pairs16_vs_one`, tokens per second of 16 pairs ÷ of one: {load['pairs16_vs_one']:.2f}."
    if "long_chat" in load:
        found = load["long_chat"]
        yield ""
        yield (
            f"Beside one pair with a prompt of {found['prompt_tokens']:.0f} tokens, a step of "
            f"{found['pairs']:.0f} short pairs takes {found['beside_ms']:.0f} ms instead of "
            f"{found['alone_ms']:.0f}: {found['beside_vs_alone']:.2f} times as long."
        )
    yield ""
    yield "![Tokens per second and time to the first token by number of pairs](speed.svg)"


_PARTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "pair": _pair_table,
    "context": _context_table,
    "load": _load_lines,
    "formats": _formats_lines,
    "evaluations": _evaluations_lines,
    "tools": _tools_table,
}


def _draw_load(load: dict[str, dict[str, float]], path: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure  # pyplot would take the place of a notebook's own settings

    pairs = [int(name) for name in load]
    panels = (
        (
            "tokens per second",
            {"tokens_per_s": "this engine, capped", "library_tokens_per_s": "library, uncapped"},
        ),
        (
            "seconds to the first token",
            {"first_token_p50_s": "median", "first_token_p95_s": "95th percentile"},
        ),
    )
    style: dict[Any, Any] = {"svg.hashsalt": "speed", "svg.fonttype": "path", "font.size": 9}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8, 3), layout="constrained")
        axes = figure.subplots(1, 2)
        for panel, (unit, names) in zip(axes, panels, strict=True):
            for (name, label), mark in zip(names.items(), ("o-", "s--"), strict=True):
                panel.plot(pairs, [one[name] for one in load.values()], mark, label=label)
            panel.set(xscale="log", xlabel="pairs at once", ylabel=unit, ylim=(0, None))
            panel.set_xticks(pairs, [str(number) for number in pairs])
            panel.minorticks_off()
            panel.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def engines_document(figures: dict[str, Any]) -> str:
    """The text of docs/engines.md."""
    return "\n".join(_engines_lines(figures["about"], figures["parity"], figures["speed"])) + "\n"


def _engines_lines(
    about: dict[str, Any], parity: dict[str, dict[str, float]], speed: dict[str, Any]
) -> Iterator[str]:
    yield "# vLLM compared with the transformers engine"
    yield ""
    yield (
        f"{about['model']}, {about['cores']} CPU cores, vLLM {about['vllm']}, transformers "
        f"{about['transformers']}. Made by `python -m demo.bench.engines --write docs`. "
        "[large-models.md](large-models.md) describes the engines and says which one to choose."
    )
    yield ""
    yield (
        f"**Do both engines give the same tokens and numbers?** Conversations of {about['turns']} turns with "
        f"replies of {about['parity_tokens']} tokens, greedy, float32, uncapped and capped as shipped; "
        "projections in axis units. The transformers engine runs the model's own modules here."
    )
    yield ""
    names = list(parity)
    keys = parity[names[0]]
    yield from markdown_table(
        ("", *names), [(key, *(f"{parity[name][key]:.3g}" for name in names)) for key in keys]
    )
    yield ""
    yield (
        f"**How fast are they?** Through the page, with replies of {about['tokens']} tokens; "
        f"{about['dtype']}. All visitors arrive within one second, and each receives a pair of replies. The "
        "engines take turns; the figures are medians. vLLM is meant for models and audiences that need more "
        "than one small machine."
    )
    yield ""
    yield from _visitors_table(speed["visitors"])
    yield ""
    starts = ", ".join(f"{name} {seconds:.0f}" for name, seconds in speed["start_s"].items())
    yield f"Seconds from the command to the first page: {starts}."


def _visitors_table(by_engine: dict[str, dict[str, dict[str, float]]]) -> Iterator[str]:
    """by_engine: engine name -> number of visitors -> figures."""
    counts = next(iter(by_engine.values()))
    return markdown_table(
        (
            "visitors",
            "engine",
            "tokens/s",
            "first token p50, s",
            "latest first token, s",
            "step of a pair p50, ms",
        ),
        [
            (
                visitors,
                name,
                f"{figures[visitors]['tokens_per_s']:.0f}",
                f"{figures[visitors]['first_token_p50_s']:.2f}",
                f"{figures[visitors]['first_token_max_s']:.2f}",
                f"{figures[visitors]['step_p50_ms']:.0f}",
            )
            for visitors in counts
            for name, figures in by_engine.items()
        ],
    )
