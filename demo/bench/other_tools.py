"""Other programs on the same model: llama.cpp, which a user would choose for speed alone, and saklas, which
steers and reads activations, too. Each answers one message with one sequence, without any intervention.

They run in a process of their own: some builds of llama.cpp end the whole process when they load a file on a
CPU that they were not compiled for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

# Arguments of both scripts: the model, a message, the number of tokens. The first reply warms up.
_LLAMA_CPP = """
import json, os, sys, time
from llama_cpp import Llama
cores = len(os.sched_getaffinity(0))
model = Llama(sys.argv[1], n_ctx=1024, n_threads=cores, verbose=False)
chat = [{"role": "user", "content": sys.argv[2]}]
times = []
for _ in range(2):
    reply = model.create_chat_completion(chat, max_tokens=int(sys.argv[3]), stream=True)
    times = [time.perf_counter() for _ in reply]
steps = sorted(b - a for a, b in zip(times[2:], times[3:]))
print(json.dumps({"step_ms": 1e3 * steps[len(steps) // 2]}))
"""

_SAKLAS = """
import json, sys, time
from saklas import SaklasSession, SamplingConfig
with SaklasSession.from_pretrained(sys.argv[1], device="cpu", probes=[]) as session:
    sampling = SamplingConfig(max_tokens=int(sys.argv[3]), seed=0)
    times = []
    for _ in range(2):
        times = [time.perf_counter() for _ in session.generate_stream(sys.argv[2], sampling=sampling)]
steps = sorted(b - a for a, b in zip(times[2:], times[3:]))
print(json.dumps({"step_ms": 1e3 * steps[len(steps) // 2]}))
"""

_MOST_SECONDS = 600


@dataclass(frozen=True)
class OtherTool:
    """A program to compare with.

    Attributes:
        name: in the documents.
        module: what its script imports.
        package: what to install for that.
        script: a Python program that measures and prints its figures as JSON.
    """

    name: str
    module: str
    package: str
    script: str

    def measure(self, model: str, message: str, tokens: int) -> dict[str, float | str]:
        """Time one sequence.

        Args:
            model: a GGUF file for llama.cpp, else a folder.
            tokens: most tokens of the reply.

        Returns:
            `step_ms`, the median milliseconds per token, or `not measured` with the reason.
        """
        try:
            done = subprocess.run(
                [sys.executable, "-c", self.script, model, message, str(tokens)],
                capture_output=True,
                text=True,
                timeout=_MOST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"not measured": f"it took more than {_MOST_SECONDS} s"}
        if done.returncode == 0:
            found: dict[str, float | str] = json.loads(done.stdout.strip().splitlines()[-1])
            return found
        if f"No module named '{self.module}'" in done.stderr:
            return {"not measured": f"{self.package} is not installed"}
        return {"not measured": f"it ended with status {done.returncode}"}


LLAMA_CPP = OtherTool("llama.cpp", "llama_cpp", "llama-cpp-python", _LLAMA_CPP)
SAKLAS = OtherTool("saklas", "saklas", "saklas", _SAKLAS)
