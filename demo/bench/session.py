"""python -m demo.bench.session: a long conversation, turn by turn: time per token and memory.

A step over a longer context costs more attention and nothing else, and memory grows by the KV cache of the new tokens.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Sequence

from demo.bench.pair import MESSAGES, Bench, add_model_options, make_bench
from demo.chat import Conversation
from demo.errors import UserError
from demo.memory import resident_mib
from demo.turns import BRANCHES


def run(bench: Bench, turns: int) -> list[dict[str, float]]:
    """One row per turn: median ms per step of the pair, context tokens, KV MiB kept, resident MiB."""
    conversation, rows = Conversation(), []
    for turn in range(turns):
        times = bench.pair_turn(conversation, MESSAGES[turn % len(MESSAGES)])
        steps = [after - before for before, after in itertools.pairwise(times[1:])]
        kept = [bench.engine.store.get(conversation.branch_id(branch)) for branch in BRANCHES]
        row = {
            "turn": turn + 1,
            "step_ms": statistics.median(steps) * 1e3,
            "first_token_ms": (times[1] - times[0]) * 1e3,
            "context_tokens": max(len(entry.ids) for entry in kept if entry),
            "kv_mib": bench.engine.store.nbytes / 2**20,
            "resident_mib": resident_mib(),
        }
        print("  ".join(f"{name} {value:8.1f}" for name, value in row.items()), flush=True)
        rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.bench.session", description=__doc__)
    add_model_options(parser)
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args(arguments)
    try:
        bench = make_bench(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = run(bench, options.turns)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
