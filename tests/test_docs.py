"""The Python of README and docs runs from top to bottom; images and links of pages exist."""

import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SLOW = ("extending.md", "evaluate.md", "train.md")


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
