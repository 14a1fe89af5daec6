"""llama.cpp on the same GGUF file, one row, where `llama-cpp-python` is installed: a yardstick from another world."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from demo.bench.pair import MESSAGES

# In a process of its own: some builds end the whole process when they load a file on a CPU they were not made for.
_SCRIPT = """
import json, sys, time
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=1024, verbose=False)
chat = [{"role": "user", "content": sys.argv[2]}]
times = []
for _ in range(2):
    times = [time.perf_counter() for _ in model.create_chat_completion(chat, max_tokens=int(sys.argv[3]), stream=True)]
steps = sorted(b - a for a, b in zip(times[2:], times[3:]))
print(json.dumps({"step_ms": 1e3 * steps[len(steps) // 2]}))
"""


def llama_cpp(gguf: Path, tokens: int) -> dict[str, float | str]:
    """Median ms per token, or why there is none."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(gguf), MESSAGES[0], str(tokens)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        found: dict[str, float | str] = json.loads(done.stdout.strip().splitlines()[-1])
        return found
    missing = "No module named 'llama_cpp'" in done.stderr
    return {"not measured": "llama-cpp-python is not installed" if missing else f"it ended with status {done.returncode}"}  # fmt: skip
