"""Studies that arithmetic decides: each claim compares two numbers, and nothing is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table as ConsoleTable

from jaxcnn import report
from jaxcnn.studies.report import cells, write_result
from jaxcnn.studies.study import folder_of

LIMIT = 1.1  # numbers whose ratio is below this do not differ in any way that matters

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim about two numbers, decided by their ratio.

    Attributes:
      name: name in tables and figures.
      claim: the claim, in a sentence of our own.
      numbers: function that returns both numbers by their labels; the ratio is that of the first to
        the second.
      equal: whether the claim is that the numbers are equal, instead of that the first is larger.
    """

    name: str
    claim: str
    numbers: Callable[[], Mapping[str, int]]
    equal: bool = False

    @property
    def falsifier(self) -> str:
        """Return the result that would contradict the claim."""
        return f"a ratio of {LIMIT} or more" if self.equal else f"a ratio below {LIMIT}"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
      title: heading.
      columns: headings of the columns.
      rows: a cell for each column; numbers are formatted by the report.
      note: text below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Calculation:
    """A study whose arms are computed from the networks; nothing is trained.

    Attributes:
      name: name on the command line.
      claim: the claims as a whole, in a sentence of our own.
      source: author of the claims, with section or figure.
      arms: the claims.
      tables: function that returns further tables.
      save_figure: function that draws the content of `study.json` into a file.
      caption: description of the figure.
      comment: explanation that the reader needs for the result.
    """

    name: str
    claim: str
    source: str
    arms: tuple[Claim, ...]
    tables: Callable[[], tuple[Table, ...]]
    save_figure: Callable[[Mapping[str, Any], Path], None]
    caption: str
    comment: str = ""

    @property
    def size(self) -> str:
        """Describe the size of the study, for the list of all."""
        claims = f"{len(self.arms)} claim{'s' if len(self.arms) != 1 else ''}"
        return f"{claims}, computed in seconds"


def calculate(study: Calculation, *, quick: bool, command: str) -> dict[str, Any]:
    """Compute the claims and tables of a study, print them, and write them to its folder.

    Args:
      study: a study.
      quick: whether to write to the folder of quick trials; the computation is the same.
      command: command for the report.

    Returns:
      The content of `study.json`, with the keys of trained studies.
    """
    report.say(f"{study.name}: {study.size}; nothing is trained")
    record: dict[str, Any] = {
        "study": study.name,
        "quick": quick,
        "command": command,
        "versions": {name: metadata.version(name) for name in ("jax", "flax", "jaxcnn")},
        "seeds": [],
        "quantity": "ratio",
        "arms": {claim.name: _decide(claim) for claim in study.arms},
        "tables": [dataclasses.asdict(table) for table in study.tables()],
    }
    folder = folder_of(study.name, quick=quick)
    page = _markdown(study, record)
    write_result(folder, record, page, lambda path: study.save_figure(record, path))
    table = ConsoleTable("claim", "numbers", "ratio", "verdict", title=study.claim)
    for name, arm in record["arms"].items():
        row = (name, ", ".join(_numbers(arm)), f"{arm['mean']:.2f}", arm["verdict"])
        table.add_row(*map(escape, row))
    report.console.print(table)
    report.say(f"Contradicted by: a ratio below {LIMIT}; for claims of equality, {LIMIT} or more.")
    report.say(f"Written: {folder}")
    return record


def _decide(claim: Claim) -> dict[str, Any]:
    """Return the ratio of a claim and its verdict, as JSON types."""
    numbers = dict(claim.numbers())
    first, second = numbers.values()
    ratio = first / second
    verdict = "holds" if (ratio < LIMIT) == claim.equal else "contradicted"
    arm = {
        "claim": claim.claim,
        "falsifier": claim.falsifier,
        "numbers": numbers,
        "values": [ratio],
        "mean": ratio,
        "std": None,
        "published": None,
        "verdict": verdict,
    }
    return {**arm, "conclusion": f"{', '.join(_numbers(arm))}: {verdict}"}


def _numbers(arm: Mapping[str, Any]) -> list[str]:
    return [f"{number:,} {label}" for label, number in arm["numbers"].items()]


_COLUMNS = ("claim", "numbers", "ratio", "contradicted by", "verdict")


def _rows(record: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for arm in record["arms"].values():
        ratio = f"{arm['mean']:.2f}"
        numbers = ", ".join(_numbers(arm))
        rows.append([arm["claim"], numbers, ratio, arm["falsifier"], arm["verdict"]])
    return rows


def _markdown(study: Calculation, record: Mapping[str, Any]) -> str:
    """Return the page of a study."""
    lines = [f"# `{study.name}`", "", f"**Claim.** {study.claim} Source: {study.source}.", ""]
    lines += ["```", record["command"], "```", ""]
    lines += ["Nothing is trained: each number is computed from the definition of a network.", ""]
    lines += [*_table(_COLUMNS, _rows(record)), "", *([study.comment, ""] if study.comment else [])]
    lines += [f"![{study.name}](figure.png)", "", study.caption, ""]
    for table in record["tables"]:
        lines += [f"## {table['title']}", ""]
        lines += _table(table["columns"], [list(map(_text, row)) for row in table["rows"]])
        lines += ["", *([table["note"], ""] if table["note"] else [])]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return "\n".join([*lines, f"Computed with {versions}."]) + "\n"


def _table(columns: Any, rows: list[list[str]]) -> list[str]:
    return [cells(columns), cells(["---"] * len(columns)), *map(cells, rows)]


def _text(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return f"{cell:,}" if isinstance(cell, int) else cell or ""
