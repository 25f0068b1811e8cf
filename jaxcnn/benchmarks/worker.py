"""One side of a benchmark: a process that measures on request.

The argument of the process is a `Job` as JSON. When ready, the process writes a line of JSON. Each
line on stdin holds the seconds to measure for; the reply is a line of JSON with the measurement, or
`{"error": ..., "kind": ...}`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from typing import Any, TextIO

from jaxcnn.benchmarks.job import Job, Run
from jaxcnn.training import chunks

# Name of a side -> module and function that prepare it. A module is imported for its own sides
# only, because another side's packages would add to the measured memory.
SIDES = {
    "jaxcnn": ("jax_sides", "prepare_jaxcnn"),
    "linen": ("jax_sides", "prepare_linen"),
    "torch": ("torch_side", "prepare"),
    "onnxruntime": ("onnx_side", "prepare"),
    "matmul": ("jax_sides", "prepare_matmul"),
    "copy": ("jax_sides", "prepare_copy"),
}


def main() -> None:
    """Serve one job until stdin ends."""
    job = Job(**json.loads(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print; keep that out of the replies
    try:
        _serve(job, replies)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        _reply(replies, {"error": lines[0], "kind": type(error).__name__})


def _serve(job: Job, replies: TextIO) -> None:
    module, function = SIDES[job.side.removesuffix(f"-{job.variant}")]
    prepared = getattr(importlib.import_module(f"jaxcnn.benchmarks.{module}"), function)(job)
    run: Run = prepared.run
    first = _seconds(run, 1)
    second = _seconds(run, 1)
    _reply(
        replies,
        {
            "compile_seconds": max(0.0, first - second),
            "device": prepared.device,
            "versions": prepared.versions,
            "flops": prepared.flops,
        },
    )
    step_seconds = second
    for line in sys.stdin:
        wanted = json.loads(line)
        chunk_seconds = min(chunks.SECONDS, wanted)
        steps, seconds = 0, 0.0
        while seconds < wanted:
            chunk = chunks.chunk_steps(step_seconds, chunk_seconds)
            seconds += (chunk_took := _seconds(run, chunk))
            steps, step_seconds = steps + chunk, chunk_took / chunk
        peak = prepared.peak_bytes() / 2**20 if prepared.peak_bytes else _peak_mib()
        _reply(replies, {"steps": steps, "seconds": seconds, "peak_mib": peak})


def _seconds(run: Run, num_steps: int) -> float:
    started = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - started


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (20 if sys.platform == "darwin" else 10)  # bytes on macOS, KiB on Linux


def _reply(replies: TextIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
