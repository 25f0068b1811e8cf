"""The page of a machine's benchmarks: rows, continuation and replacement."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxcnn.benchmarks import machine_report
from jaxcnn.benchmarks.machine_report import to_markdown, write_report
from jaxcnn.errors import RunError, UserError

COMMANDS = ("lenet5 --batch-size 64", "alexnet --batch-size 64", "lenet5 --what startup")


def figures(images_per_second, ratios, **others):
    found = {"images_per_second": images_per_second, "step_ms": 2.5, "ratios": ratios}
    return found | {"gflops": 99.0, "of_matmul": 0.5, "peak_mib": 300.0, "compile_seconds": 1.5}


def comparison(device="NVIDIA H200", **changes):
    ours, theirs = figures(24_000, (1, 1, 1)), figures(12_000, (2.0, 1.5, 2.5))
    return {
        **{"what": "train", "dtype": "bfloat16", "device": device, "left_out": {}},
        "figures": {"jaxcnn": ours | {"gflops": 494_500.0}, "torch": theirs},
        "sides": {"torch": {"variant": "compile"}},
        **changes,
    }


@pytest.fixture
def runs(monkeypatch):
    """Replace the processes; yield the commands that ran and a dict of those that fail."""
    ran, failing = [], {}

    class Device:
        facts = {"device": "a device", "versions": {"jax": "1.2.3"}}

        def __init__(self, job):
            pass

        def wait(self):
            pass

        def stop(self):
            pass

    def run(command, **_):
        words = command[command.index("benchmark") + 1 :]
        name = " ".join(words[: words.index("--rounds")])
        ran.append(name)
        if name in failing:
            return SimpleNamespace(returncode=1, stderr=f"noise\nerror: {failing[name]}\n")
        result = comparison("a device")
        if "startup" in name:
            assert "--seconds" not in words and "--against" not in words
            result = {"what": "startup", "seconds": {"first step": [3.0, 2.0, 7.0]}}
        Path(words[words.index("--json") + 1]).write_text(json.dumps([result]))
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(machine_report, "Worker", Device)
    monkeypatch.setattr(subprocess, "run", run)
    return ran, failing


def write(path, **changes):
    options = {"rounds": 2, "seconds": 0.5, "minutes": None, "say": lambda line: None}
    write_report(path, **(options | {"commands": COMMANDS} | changes))
    return path.read_text()


def test_report_keeps_the_page_and_measures_failed_rows_again(tmp_path, runs):
    ran, failing = runs
    page = tmp_path / "page.md"
    page.write_text("# Title\n\nBefore.\n")
    failing[COMMANDS[1]] = "out of memory"
    text = write(page)
    assert text.startswith("# Title\n\nBefore.\n\n<!-- benchmarks: a device -->")
    assert "- `alexnet --batch-size 64`: out of memory" in text
    assert "startup`, first step: 3.00 s (2.00-7.00)" in text
    assert ran == [*COMMANDS]

    page.write_text(text + "\nAfter.\n")
    failing.clear()
    text = write(page)
    assert ran[3:] == [COMMANDS[1]]
    assert text.count("<!-- benchmarks") == 1 and "out of memory" not in text
    assert text.index("| `lenet5 --") < text.index("| `alexnet --") < text.index("After.")
    write(page, rounds=3)  # other settings are measured from the start
    assert ran[4:] == [*COMMANDS]


def test_report_starts_no_row_after_its_minutes(tmp_path, runs):
    text = write(tmp_path / "page.md", minutes=1e-9)
    assert runs[0] == [] and all(f"`{command}`" in text for command in COMMANDS)
    assert text.count("not started within") == 1


def test_report_refuses_a_file_that_is_not_its_own(tmp_path, runs):
    (tmp_path / "page.json").write_text("[1]")
    with pytest.raises(RunError, match="page.json' is not a report"):
        write(tmp_path / "page.md")
    with pytest.raises(UserError, match="`rounds` is 0"):
        write(tmp_path / "page.md", rounds=0)


def test_to_markdown_shows_every_figure():
    alone = comparison("a device", left_out={"torch eager": "not | installed"})
    del alone["figures"]["torch"]
    scale = {
        "what": "scale",
        "network": "lenet5",
        "here": {"step_seconds": 0.002, "limit": "memory", "measured": {"jaxcnn": 0.003}},
    }
    text = to_markdown("a machine", {"a": comparison(), "b": alone, "c": scale})
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert cells[1] == [
        *("`a`", "24,000", "2.50", "2.00x (1.50-2.50) (compile)", "494,500", "50%", "50%"),
        *("300, 300", "1.5, 1.5"),
    ]
    assert cells[2][3:] == ["not / installed", "494,500", "50%", "-", "300", "1.5"]
    assert cells[4] == ["lenet5", "2.00 (memory)", "3.00", "1.50"]
