"""Python, commands, images and links of README and docs: the code runs, the rest exists."""

import functools
import os
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from helpers import SCRIPTS, run_script

from jaxcnn import PRESETS

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CIFAR = pathlib.Path(
    os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "cifar10"
).expanduser()
SLOW = (
    "demo.md",
    "extending.md",
    "evaluate.md",
    "export.md",
    "fine-tune.md",
    "performance.md",
    "predict.md",
    "pytorch-weights.md",
    "studies.md",
    "train.md",
)
SUBCOMMANDS = ("compare", "export", "import")


def names(pages):
    return [page.relative_to(ROOT).as_posix() for page in pages]


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


WITH_CODE = [
    pytest.param(page, id=name, marks=[pytest.mark.slow] if page.name in SLOW else [])
    for page, name in zip(PAGES, names(PAGES), strict=True)
    if blocks(page)
]


@pytest.mark.parametrize("page", WITH_CODE)
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path):
    code = "\n".join(blocks(page))
    for package in ("torch", "onnxruntime", "flatbuffers"):
        if f"import {package}" in code or f"`{package}`" in page.read_text():
            pytest.importorskip(package)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_links_of_a_page_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_readme_ends_within_150_lines():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_readme_names_tests_that_exist():
    for path in re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path


def commands(page):
    """Return (script, arguments) for each command of a page, in blocks and in running text."""
    text = page.read_text().replace("\\\n", " ")
    found = re.findall(r"python scripts/(\w+\.py)([^`\n#|&]*)", text)
    return [(script, shlex.split(arguments)) for script, arguments in found]


@functools.cache
def usage(script, *subcommand):
    help_flag = "--help-all" if script == "train.py" else "--help"
    done = run_script(script, *subcommand, help_flag, COLUMNS="1000")
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMANDS = sorted(
    {(script, tuple(arguments)) for page in PAGES for script, arguments in commands(page)}
)


@pytest.mark.parametrize(("script", "arguments"), COMMANDS)
def test_commands_of_the_pages_name_scripts_flags_and_presets_that_exist(script, arguments):
    assert (SCRIPTS / script).exists()
    for argument in arguments:
        if " " in argument:  # flags of train.py, as an arm of a study
            continue
        if argument.startswith("--") and argument not in ("--help", "--help-all", "--list"):
            flag = re.escape(argument.split("=")[0])
            subcommand = [word for word in arguments[:1] if word in SUBCOMMANDS]
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", usage(script, *subcommand)), argument
    if script == "train.py" and arguments and re.fullmatch(r"[a-z][\w-]*", arguments[0]):
        assert arguments[0] in PRESETS


def test_commands_are_found_on_the_pages():
    assert {script for script, _ in COMMANDS} == {path.name for path in SCRIPTS.glob("*.py")}
    assert len(COMMANDS) > 20
