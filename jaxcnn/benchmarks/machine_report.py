"""One table of all benchmarks of a machine, as a section of a Markdown page.

Each row is a `benchmark` command of its own process, so that one that fails costs only its row. Its
result is kept in a JSON file beside the page, so that an interrupted report is continued.
"""

from __future__ import annotations

import datetime
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jaxcnn import report
from jaxcnn.benchmarks.compare import Worker, check_turns
from jaxcnn.benchmarks.cost_model import DATA_SHEET_FLOPS
from jaxcnn.benchmarks.job import Job
from jaxcnn.benchmarks.table import short
from jaxcnn.errors import RunError
from jaxcnn.files import write_atomically

# The most important commands first, because a report with little time ends early.
COMMANDS = (
    "lenet5 --what epoch",
    "alexnet --batch-size 64",
    "lenet5 --batch-size 64",
    "lenet5 --what infer --batch-size 1000",
    "alexnet --what infer --batch-size 64",
    "lenet5 --what scale",
    "alexnet --what scale",
    "alexnet-32 --batch-size 128",
    "cuda-convnet-18pct --batch-size 128",
    "alexnet-2012 --batch-size 64",
    "lenet5-1998 --batch-size 1",
    "lenet5 --batch-size 512",
    "lenet5 --batch-size 2048",
    "lenet5 --what infer --batch-size 1",
    "lenet5 --what infer --batch-size 64",
    "alexnet --what infer --batch-size 1",
    "alexnet-32 --what infer --batch-size 64",
    "cuda-convnet-18pct --what infer --batch-size 64",
    "alexnet --batch-size 64 --image-size 96",
    "alexnet --batch-size 64 --image-size 128",
    "alexnet --batch-size 64 --image-size 160",
    "lenet5 --what startup",
)
# Commands that run first on a GPU. AlexNet has 512 images there, because 64 do not fill a GPU.
GPU_COMMANDS = (
    "lenet5 --what epoch",
    "alexnet --batch-size 512 --dtype bfloat16",
    "lenet5 --batch-size 64",
    "alexnet --batch-size 64",
    "alexnet --batch-size 512",
    "alexnet --batch-size 64 --dtype bfloat16",
    "alexnet --what infer --batch-size 64 --dtype bfloat16",
    "alexnet-32 --batch-size 128 --dtype bfloat16",
    "alexnet-2012 --batch-size 64 --dtype bfloat16",
)

HEADINGS = (
    *("`python scripts/benchmark.py` ...", "images/s", "ms/step", "over PyTorch", "GFLOP/s"),
    *("of measured products", "of data sheet", "peak MiB, PyTorch's", "compile s, PyTorch's"),
)

Results = dict[str, Any]  # command -> result of the benchmark, or {"error": reason}


def write_report(
    path: Path,
    *,
    rounds: int,
    seconds: float,
    minutes: float | None,
    say: Callable[[str], None],
    commands: Sequence[str] | None = None,
) -> None:
    """Run the commands that have no result yet, and write the machine's section after each.

    Args:
      path: Markdown page; the results are in the file with the extension `.json`.
      rounds: number of turns of each side.
      seconds: shortest duration of a turn.
      minutes: time after which no further command starts; None is unlimited.
      say: function that prints a progress line.
      commands: arguments of `benchmark`; by default those for this machine.

    Raises:
      UserError: `rounds` or `seconds` is out of range.
      RunError: JAX does not run, or the JSON file is not a report's.
    """
    check_turns(rounds, seconds)
    started = time.monotonic()
    device, versions = _device()
    if commands is None:
        on_gpu = tuple(dict.fromkeys((*GPU_COMMANDS, *COMMANDS)))
        commands = COMMANDS if device == "cpu" else on_gpu
    store = path.with_suffix(".json")
    everything = _read(store)
    name = f"{report.device_name(device)}, {rounds} rounds of {seconds:g} s, {versions}"
    results: Results = everything.setdefault(name, {})
    for number, command in enumerate(commands, start=1):
        if "error" not in results.get(command, {"error": ""}):
            say(f"{number} of {len(commands)}: {command}: measured before; see {store}")
            continue
        if minutes is not None and time.monotonic() - started > 60 * minutes:
            results[command] = {"error": f"not started within {minutes:g} minutes"}
            continue
        say(f"{number} of {len(commands)}: {command}")
        results[command] = _measure(command, rounds, seconds)
        if "error" in results[command]:
            say(f"failed: {results[command]['error']}")
        write_atomically(store, json.dumps(everything, indent=1) + "\n")
        _write_section(path, device, name, {it: results[it] for it in commands if it in results})
    _write_section(path, device, name, {it: results[it] for it in commands if it in results})
    say(f"wrote {path}; remove {store} to measure everything again")


def to_markdown(name: str, results: Mapping[str, Any]) -> str:
    """Return the section's text.

    Args:
      name: machine, rounds and versions.
      results: command -> result, in the order of the rows.
    """
    rows, scale, others = [], [], []
    failed: dict[str, list[str]] = {}  # reason -> commands
    for command, result in results.items():
        if "error" in result:
            failed.setdefault(result["error"], []).append(f"`{command}`")
        elif result["what"] == "scale":
            here, ours = result["here"], result["here"]["measured"]["jaxcnn"]
            scale.append(
                f"| {result['network']} | {short(1e3 * here['step_seconds'])} ({here['limit']}) | "
                f"{short(1e3 * ours)} | {ours / here['step_seconds']:.2f} |"
            )
        elif result["what"] == "startup":
            for of, each in result["seconds"].items():
                spread = f"{min(each):.2f}-{max(each):.2f}"
                others.append(f"- `{command}`, {of}: {median(each):.2f} s ({spread})")
        else:
            rows.append(_row(command, result))
    today = datetime.datetime.now(datetime.UTC).date()
    parts = [f"## Measured on {name}", f"{today}. Medians, with the least and the largest ratio."]
    if rows:
        rule = "|".join(["---"] * len(HEADINGS))
        parts.append("\n".join([f"| {' | '.join(HEADINGS)} |", f"|{rule}|", *rows]))
    if scale:
        heading = "| step, batch 64 | predicted (ms) | measured (ms) | of prediction |"
        parts.append("\n".join([heading, "|---|---|---|---|", *scale]))
    if others:
        parts.append("\n".join(others))
    if failed:
        lines = (f"- {', '.join(commands)}: {reason}" for reason, commands in failed.items())
        parts.append("Not measured:\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def _row(command: str, result: Mapping[str, Any]) -> str:
    ours, theirs = result["figures"]["jaxcnn"], result["figures"].get("torch")
    over = "-"
    if theirs:
        ratio, least, largest = theirs["ratios"]
        variant = result["sides"]["torch"]["variant"]
        over = f"{ratio:.2f}x ({least:.2f}-{largest:.2f}) ({variant})"
    elif result["left_out"]:
        over = "; ".join(dict.fromkeys(result["left_out"].values()))
    peaks = [
        flops[result["dtype"]]
        for chip, flops in DATA_SHEET_FLOPS.items()
        if chip in result["device"]
    ]
    pairs = [f"{ours['peak_mib']:,.0f}", f"{ours['compile_seconds']:.1f}"]
    if theirs:
        pairs[0] += f", {theirs['peak_mib']:,.0f}"
        pairs[1] += f", {theirs['compile_seconds']:.1f}"
    cells = (
        *(f"`{command}`", short(ours["images_per_second"]), short(ours["step_ms"]), over),
        *(short(ours["gflops"]), f"{ours['of_matmul']:.0%}"),
        *(f"{1e9 * ours['gflops'] / peaks[0]:.0%}" if peaks else "-", *pairs),
    )
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _device() -> tuple[str, str]:
    """Return JAX's name of the device, and the versions, from a process of its own."""
    worker = Worker(Job("matmul", "", "", "train", 1, "float32"))
    try:
        worker.wait()
    finally:
        worker.stop()
    versions = {"python": sys.version.split()[0], **worker.facts["versions"]}
    text = ", ".join(f"{package} {version}" for package, version in versions.items())
    return worker.facts["device"], text


def _measure(command: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Run a benchmark and return its result, or {"error": the last line of its errors}."""
    words = [*command.split(), "--rounds", str(rounds)]
    if "startup" not in words:
        words += ["--seconds", str(seconds)]
    if not {"startup", "scale"} & {*words}:
        words += ["--against", "torch"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        done = subprocess.run(
            [sys.executable, "-m", "jaxcnn", "benchmark", *words, "--json", out],
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return {"error": last.removeprefix("error: ")}
        result: dict[str, Any] = json.loads(out.read_text())[0]
        return result


def _read(store: Path) -> dict[str, Results]:
    if not store.exists():
        return {}
    try:
        found: dict[str, Results] = json.loads(store.read_text())
        assert all(isinstance(results, dict) for results in found.values())
    except (ValueError, AttributeError, AssertionError):
        raise RunError(
            f"{str(store)!r} is not a report; expected the results of an earlier one; rename it"
        ) from None
    return found


def _write_section(path: Path, device: str, name: str, results: Mapping[str, Any]) -> None:
    """Replace the device's section of the page, or append it."""
    label = report.device_name(device)
    begin, end = f"<!-- benchmarks: {label} -->", f"<!-- end of benchmarks: {label} -->"
    section = f"{begin}\n\n{to_markdown(name, results)}\n\n{end}"
    page = path.read_text() if path.exists() else ""
    between = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if between.search(page):
        page = between.sub(lambda _: section, page)
    else:
        page = f"{page.rstrip()}\n\n{section}\n".lstrip()
    write_atomically(path, page)
