"""python -m demo.bench.cuda_graphs: a decode step on a GPU as a CUDA graph, and what the clamp costs in it.

The models have the shapes of real ones and random weights. Each sequence holds a context of random keys and
values. Five methods take turns: transformers' modules without and with a cap on half of the sequences, and
graphs without the clamp in them, with the clamp but no cap, and with a cap on half of the sequences.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, PreTrainedConfig, Qwen2Config

from demo.axis.axis import AssistantAxis
from demo.axis.components import probe_components
from demo.bench.report import write_json
from demo.bench.tiny_configs import tiny_tokenizer
from demo.engine.forward.cuda_graphs import BUCKETS, GraphForward
from demo.engine.forward.forward_pass import Beside, Chunk, ForwardPass, Probe
from demo.engine.forward.modules import ModuleForward
from demo.engine.kv_cache import KVCache
from demo.engine.protocol import Cap, Sampling
from demo.engine.sampling import SamplingStep, sample_batch
from demo.models.architectures import find_decoder_layers
from demo.models.loading import LoadedModel
from demo.utils.cli import command
from demo.utils.errors import UserError, first_sentence
from demo.utils.markdown import markdown_table

COUNTS = (1, 2, 8, 32, 64, 128)

_BAND = (0.45, 0.7)  # of the depth, the capped layers
_ROUNDS, _WARM_UP = 4, 3
_STEPS = {"modules": 4, "graphs": 24}  # of each round; a step of modules takes many times longer
_LIBRARY_TOKENS = (8, 72)
_SPREAD = 6.0  # standard deviation of a chat model's logits

_LONGEST = 512  # more steps than the methods take together

# Configurations with the sizes of published models; the default model's first.
SHAPES: dict[str, Callable[[], PreTrainedConfig]] = {
    "smollm2-135m": lambda: LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "qwen2.5-0.5b": lambda: Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "qwen2.5-1.5b": lambda: Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    ),
    "llama-3.1-8b": lambda: LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
    ),
}

Figures = dict[str, float]
Methods = dict[str, tuple[ForwardPass, bool]]


def random_model(name: str, device: torch.device) -> LoadedModel:
    """A bfloat16 model with one of `SHAPES` and random weights."""
    torch.manual_seed(0)
    with device:
        made = AutoModelForCausalLM.from_config(SHAPES[name](), dtype=torch.bfloat16)
    made.eval().requires_grad_(False)
    return LoadedModel(
        model=made,
        tokenizer=tiny_tokenizer(),
        spec=name,
        slug=name,
        layers=find_decoder_layers(made),
        hidden_size=made.config.hidden_size,
        context=made.config.max_position_embeddings,
        architecture=type(made).__name__,
        revision=None,
        device=device,
        dtype=torch.bfloat16,
        dtype_reason="bfloat16",
    )


def random_axis(model: LoadedModel) -> AssistantAxis:
    """Random directions and components, and floors at 0, below which about half of all tokens lie."""
    torch.manual_seed(1)
    layers, width = len(model.layers), model.hidden_size
    direction, zeros = torch.randn(layers, width), torch.zeros(layers, width)
    manifest = {"probe_layer": layers * 2 // 3}
    floors = {"p50": torch.zeros(layers)}
    return AssistantAxis(direction, zeros, direction, floors, manifest, pca=torch.randn(3, layers, width))


def methods(model: LoadedModel, axis: AssistantAxis) -> Methods:
    """Each forward pass, and whether half of the sequences have a cap in it."""
    components = probe_components(axis, model.device)
    probe = Probe(model, axis, Beside(axis.probe_layer, components))
    modules, graphs = ModuleForward(model, probe), GraphForward(model, probe)
    return {
        "modules": (modules, False),
        "modules, capped": (modules, True),
        "graphs, no clamp": (GraphForward(model, probe, graphs.decoder, taps=False), False),
        "graphs, no cap": (graphs, False),
        "graphs, capped": (graphs, True),
    }


def filled_cache(model: LoadedModel, forward: ForwardPass, slots: int, context: int) -> KVCache:
    """A cache in which every slot holds random keys and values."""
    cache, config = forward.new_cache(), model.model.config
    assert isinstance(cache, KVCache)
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    like = torch.empty((config.num_key_value_heads, 1, size), dtype=model.dtype, device=model.device)
    cache.reserve(slots, context + _LONGEST)
    for layer in cache.layers:
        layer.allocate_like(like, like)
        layer.keys.normal_()
        layer.values.normal_()
    return cache


def step_times(model: LoadedModel, axis: AssistantAxis, passes: Methods, count: int, context: int) -> Figures:
    """Median milliseconds of a decode step of `count` sequences, by method, and of sampling their tokens."""
    cache = filled_cache(model, passes["modules"][0], count, context)
    first, last = (round(share * len(model.layers)) for share in _BAND)
    band = tuple(range(first, last))
    cap = Cap(band, tuple(float(axis.floors["p50"][layer]) for layer in band))
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    logits = torch.empty(0)
    # Each step is one token further, as in a reply, because some methods prepare anew for each length.
    start = context
    for round_ in range(_ROUNDS + 1):
        for name, (forward, capped) in passes.items():
            for _ in range(_STEPS[name.split(",")[0]] if round_ else _WARM_UP):
                start += 1
                chunks = [
                    Chunk(
                        slot,
                        start,
                        [slot + 5],
                        [False],
                        None if slot % 2 or not capped else cap,
                        prompt=False,
                    )
                    for slot in range(count)
                ]
                logits, took = _timed(lambda: forward.run(chunks, cache)[0])  # noqa: B023 (run at once)
                if round_:
                    seconds[name].append(took)
    found = {name: statistics.median(times) for name, times in seconds.items()}
    found["sampling"] = _sampling_seconds(logits)
    return {name: round(1e3 * one, 3) for name, one in found.items()}


def capture_seconds(model: LoadedModel, forward: ForwardPass) -> float:
    """How long it takes to capture a graph for every size of a batch."""
    cache = filled_cache(model, forward, COUNTS[-1], 1)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for count in BUCKETS:
        chunks = [Chunk(slot, 1, [slot + 5], [False], prompt=False) for slot in range(count)]
        forward.run(chunks, cache)
    return time.perf_counter() - start


def _timed(do: Callable[[], Tensor]) -> tuple[Tensor, float]:
    torch.cuda.synchronize()
    start = time.perf_counter()
    result = do()
    torch.cuda.synchronize()
    return result, time.perf_counter() - start


def _sampling_seconds(logits: Tensor) -> float:
    """How long it takes to sample the next token of every sequence with the page's settings.

    The logits of random weights are too flat for that: nearly all tokens would be in the nucleus.
    """
    taken, logits = [], _SPREAD * torch.randn_like(logits)
    for step in range(2 * _WARM_UP):
        steps = [SamplingStep(Sampling(seed=row // 2), step, range(100)) for row in range(len(logits))]
        torch.cuda.synchronize()
        start = time.perf_counter()
        sample_batch(logits, steps)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[_WARM_UP:])


@torch.inference_mode()
def library_step(model: LoadedModel, context: int, count: int) -> float:
    """Milliseconds of a step of plain `generate` with a static cache, which transformers compiles."""
    ids = torch.randint(5, 250, (count, context), device=model.device)
    generate: Any = model.model.generate
    seconds = {}
    for tokens in (*_LIBRARY_TOKENS, *_LIBRARY_TOKENS):  # the first of each warms up
        settings = GenerationConfig(
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            cache_implementation="static",
            max_length=None,
        )
        torch.cuda.synchronize()
        start = time.perf_counter()
        generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        torch.cuda.synchronize()
        seconds[tokens] = time.perf_counter() - start
    few, many = _LIBRARY_TOKENS
    return 1e3 * (seconds[many] - seconds[few]) / (many - few)


def _library(model: LoadedModel, context: int) -> dict[str, Any]:
    """The milliseconds of one and of two sequences, or why they could not be measured."""
    try:
        return {str(count): round(library_step(model, context, count), 3) for count in (1, 2)}
    except Exception as error:  # a compiler can raise errors of any kind
        return {"not measured": first_sentence(error) or type(error).__name__}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All figures. Raises UserError where there is no GPU."""
    if not torch.cuda.is_available():
        raise UserError(
            "CUDA graphs need an NVIDIA GPU and a CUDA build of torch: run this on a machine with both."
        )
    device = torch.device("cuda", torch.cuda.current_device())
    figures: dict[str, Any] = {
        "about": {
            "gpu": torch.cuda.get_device_name(device),
            "torch": torch.__version__,
            "context": options.context,
            "capped_share_of_depth": list(_BAND),
        },
        "shapes": {},
    }
    for name in options.shape or SHAPES:
        model = random_model(name, device)
        axis = random_axis(model)
        passes = methods(model, axis)
        seconds = capture_seconds(model, passes["graphs, capped"][0])
        own: dict[str, Any] = {"layers": len(model.layers), "capture_s": round(seconds, 1), "steps": {}}
        for count in (n for n in COUNTS if n <= options.most):
            own["steps"][str(count)] = times = step_times(model, axis, passes, count, options.context)
            print(f"{name}, {count}: " + ", ".join(f"{k} {v:.2f}" for k, v in times.items()), flush=True)
        if options.library and name in options.library:
            own["library"] = _library(model, options.context)
            print(f"{name}, library: {own['library']}", flush=True)
        figures["shapes"][name] = own
        del model, passes
        torch.cuda.empty_cache()
    return figures


def lines(figures: dict[str, Any]) -> Iterator[str]:
    """The document of the figures, cuda-graphs.md."""
    about = figures["about"]
    first, last = about["capped_share_of_depth"]
    yield "# CUDA graphs"
    yield ""
    yield (
        f"{about['gpu']}, torch {about['torch']}, bfloat16; models with random weights. One decode step in "
        f"ms, without sampling, of sequences with {about['context']} tokens each; medians of one run of "
        "`python -m demo.bench.cuda_graphs --write docs`, in which the methods take turns. *Modules* are "
        "transformers' own; *capped*: every second sequence has a cap on the layers between "
        f"{first:.0%} and {last:.0%} of the depth. *Clamp* is the capped graph ÷ the graph without a "
        "clamp. *Sampling* is what choosing the tokens adds to every method. With a single sequence the "
        "modules attend to exactly its columns, so that the attention has a new shape at every step."
    )
    for name, shape in figures["shapes"].items():
        yield ""
        yield f"{name}, {shape['layers']} layers; capturing all graphs takes {shape['capture_s']:.1f} s:"
        yield ""
        yield from markdown_table(
            ("sequences", *_columns(shape), "clamp", "modules ÷ graphs"),
            [_row(count, times) for count, times in shape["steps"].items()],
        )
        if "library" in shape:
            yield ""
            found = (
                f"{ms:.2f} ms for {n}" if n != "not measured" else f"{n}: {ms}"
                for n, ms in shape["library"].items()
            )
            yield f"transformers' compiled `generate` with a static cache, uncapped: {', '.join(found)}."


def _columns(shape: dict[str, Any]) -> list[str]:
    return list(next(iter(shape["steps"].values())))


def _row(count: str, times: Figures) -> list[str]:
    clamp = times["graphs, capped"] / times["graphs, no clamp"]
    gain = times["modules, capped"] / times["graphs, capped"]
    return [count, *(f"{ms:.2f}" for ms in times.values()), f"{clamp:.2f}", f"{gain:.1f}"]


def write_report(folder: Path, figures: dict[str, Any]) -> None:
    """Write cuda-graphs.json and cuda-graphs.md."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "cuda-graphs.json", figures)
    (folder / "cuda-graphs.md").write_text("\n".join(lines(figures)) + "\n", encoding="utf-8")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m demo.bench.cuda_graphs", description=__doc__)
    parser.add_argument("--shape", action="append", choices=SHAPES, help="only this shape; may be repeated")
    parser.add_argument(
        "--context", type=int, default=512, help="tokens of each sequence (default: %(default)s)"
    )
    parser.add_argument(
        "--library", action="append", choices=SHAPES, help="also time compiled `generate` on this shape"
    )
    parser.add_argument(
        "--most", type=int, default=COUNTS[-1], help="most sequences at once (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument(
        "--write", type=Path, metavar="FOLDER", help="also write cuda-graphs.md and cuda-graphs.json there"
    )
    options = parser.parse_args(arguments)
    figures = run(options)
    print("\n".join(lines(figures)))
    if options.json:
        write_json(options.json, figures)
    if options.write:
        write_report(options.write, figures)


if __name__ == "__main__":
    raise SystemExit(main())
