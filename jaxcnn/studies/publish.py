"""Put the result of a study into a folder of documentation, and list all that are there."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from jaxcnn import records, report
from jaxcnn.errors import UserError
from jaxcnn.files import write_atomically
from jaxcnn.studies.calculation import Calculation
from jaxcnn.studies.catalogue import STUDIES
from jaxcnn.studies.report import cells, measured_text
from jaxcnn.studies.study import Study, folder_of

HEADER = """\
# Studies

Each study measures a claim over seeds, with one command, as `python scripts/study.py seeds`.
Measured are means and standard deviations. [Run a study](../guides/studies.md) describes it.

"""


def publish(study: Study | Calculation, folder: Path) -> None:
    """Copy page, figure and data of a study, and rewrite `index.md`.

    Args:
      study: a study that has been run.
      folder: folder of the pages.

    Raises:
      UserError: the study has not been run, or only with `quick`.
    """
    source = folder_of(study.name)
    if not (source / "study.json").exists():
        raise UserError(f"{source} holds no result; run the study first")
    try:
        record = records.read(source / "study.json")
    except UserError as error:
        raise UserError(f"{source}/study.json is damaged: {error}; run the study again") from None
    folder.mkdir(parents=True, exist_ok=True)
    page = (source / "report.md").read_text().replace("(figure.png)", f"({study.name}.png)")
    write_atomically(folder / f"{study.name}.md", page)
    shutil.copyfile(source / "figure.png", folder / f"{study.name}.png")
    record["claim"] = study.claim
    write_atomically(folder / f"{study.name}.json", json.dumps(record, indent=1) + "\n")
    write_atomically(folder / "index.md", _index(folder))
    report.say(f"Published: {folder / study.name}.md, and its line in {folder / 'index.md'}")


def _index(folder: Path) -> str:
    """Return the page that lists the studies in a folder."""
    columns = ["command", "claim", "measured", "verdict", "seeds"]
    lines = [cells(columns), cells(["---"] * len(columns))]
    found = {path.stem for path in folder.glob("*.json")}
    names = [name for name in STUDIES if name in found]
    names += sorted(found.difference(names))
    for name in names:
        try:
            lines.append(_row(name, records.read(folder / f"{name}.json")))
        except records.MISFITS:
            raise UserError(
                f"{folder / name}.json is no result of a study; run that study and publish it "
                "again, or choose another folder"
            ) from None
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])
    return HEADER + "\n".join(lines) + f"\n\n{toctree}\n"


def _row(name: str, record: dict[str, Any]) -> str:
    is_computed = not record["seeds"]
    measured = [_measured(arm, each) for arm, each in record["arms"].items()]
    return cells(
        [
            f"[`study.py {name}`]({name}.md)",
            record["claim"],
            f"{len(measured)} claims"
            if is_computed
            else "<br>".join([f"{record['label']}:", *measured]),
            _verdict(record),
            "computed" if is_computed else str(len(record["seeds"])),
        ]
    )


def _measured(name: str, arm: dict[str, Any]) -> str:
    published = arm["published"]
    printed = f" (published: {published['value']:g})" if published else ""
    return f"{name} {measured_text(arm)}{printed}"


def _verdict(record: dict[str, Any]) -> str:
    """Sum up the arms in words that follow from their numbers."""
    arms: dict[str, Any] = record["arms"]
    if not record["seeds"]:
        words = Counter(arm["verdict"] for arm in arms.values())
        return ", ".join(f"{word}: {count}" for word, count in words.items())
    parts = []
    if words := Counter(arm["verdict"] for arm in arms.values() if arm["published"]):
        parts += [
            word if words.total() == 1 else f"{word}: {count} of {words.total()} figures"
            for word, count in words.items()
        ]
    elif claimed := [arm["as_claimed"] for arm in arms.values() if arm["as_claimed"] is not None]:
        parts.append(f"as claimed: {sum(claimed)} of {len(claimed)} arms")
    if record["stepwise"]:
        steps = [name for name, arm in arms.items() if arm["differs"]]
        parts.append(f"steps that differ from the one before: {'; '.join(steps) or 'none'}")
    return "; ".join(parts)
