"""Put the result of a study into a folder of documentation, and list all that are there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from jaxcnn import records
from jaxcnn.errors import UserError
from jaxcnn.files import write_atomically
from jaxcnn.studies.calculation import Calculation
from jaxcnn.studies.report import cells, measured_text
from jaxcnn.studies.study import Study, folder_of

HEADER = """\
# Studies

Each study measures a claim over seeds, with one command: `python scripts/study.py NAME`.
[Run a study](../guides/studies.md) describes it.

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


def _index(folder: Path) -> str:
    """Return the page that lists the studies in a folder."""
    lines = [cells(["study", "claim", "published", "measured", "verdict, or difference", "seeds"])]
    lines.append(cells(["---"] * 6))
    names = sorted(path.stem for path in folder.glob("*.json"))
    for name in names:
        try:
            lines += _rows(name, records.read(folder / f"{name}.json"))
        except records.MISFITS:
            raise UserError(
                f"{folder / name}.json is no result of a study; run that study and publish it "
                "again, or choose another folder"
            ) from None
    toctree = "\n".join(["```{toctree}", ":hidden:", "", *names, "```"])
    return HEADER + "\n".join(lines) + f"\n\n{toctree}\n"


def _rows(name: str, record: dict[str, Any]) -> list[str]:
    rows = []
    for number, (arm, each) in enumerate(record["arms"].items()):
        published = each["published"]
        rows.append(
            cells(
                [
                    "" if number else f"[`{name}`]({name}.md)",
                    each.get("claim", "" if number else record["claim"]),
                    f"{published['value']:g}" if published else "",
                    f"{arm}: {measured_text(each)}",
                    each["verdict"] if published else each["conclusion"],
                    "" if number else str(len(record["seeds"]) or "computed"),
                ]
            )
        )
    return rows
