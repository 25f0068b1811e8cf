"""A study as a table on the console, a figure and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from jaxcnn import report
from jaxcnn.files import write_atomically
from jaxcnn.studies.statistics import sampling_std
from jaxcnn.studies.study import Curve, Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

QUICK = (
    "A quick trial: two epochs on a few images, one seed. It shows that the study runs, no more."
)


def write_result(
    folder: Path, record: Mapping[str, Any], page: str, draw: Callable[[Path], None]
) -> None:
    """Write the files of a study's result.

    Args:
      folder: folder of the study, made if it is missing.
      record: content of `study.json`.
      page: content of `report.md`.
      draw: function that draws the figure into a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "study.json", json.dumps(record, indent=2) + "\n")
    for extension in ("png", "svg"):
        draw(folder / f"figure.{extension}")
    write_atomically(folder / "report.md", page)


def print_summary(study: Study, record: dict[str, Any]) -> None:
    """Print the table of a study."""
    title = f"{study.label}, mean ± standard deviation over {len(record['seeds'])} seeds"
    table = Table(title=title if len(record["seeds"]) > 1 else study.label)
    for column in ("arm", *_columns(study)):
        table.add_column(column, overflow="fold")
    for name, arm in record["arms"].items():
        table.add_row(*map(escape, _row(study, name, arm)))
    report.console.print(table)
    report.say(f"Claim: {study.claim} ({study.source})")
    report.say(f"It would be contradicted by: {study.falsifier}")
    if record["quick"]:
        report.say(QUICK)


def to_markdown(study: Study, record: dict[str, Any]) -> str:
    """Return the page of a study."""
    seeds = record["seeds"]
    lines = [f"# `{study.name}`", "", *([f"**{QUICK}**", ""] if record["quick"] else [])]
    lines += [f"**Claim.** {study.claim} Source: {study.source}.", ""]
    lines += [f"**Contradicted by.** {study.falsifier}", ""]
    lines += ["```", record["command"], "```", ""]
    lines += [f"![{study.label}](figure.png)", ""]
    lines += [
        f"{study.label}; mean ± standard deviation over seeds {_seeds(seeds)}.",
        "",
    ]
    columns = ["arm", *_columns(study), "each seed"]
    lines += [cells(columns), cells(["---"] * len(columns))]
    for name, arm in record["arms"].items():
        each = " ".join(f"{value:.2f}" for value in arm["values"])
        lines.append(cells([*_row(study, name, arm), each]))
    lines += ["", *_derived(record["derived"]), *([study.comment, ""] if study.comment else [])]
    lines += _sources(study)
    lines += _rates(study, record["rates"])
    lines += ["Arms, as they differ from their preset:", ""]
    lines += [f"- {name}: `{arm['config']}`" for name, arm in record["arms"].items()]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    lines += ["", f"Measured on {record['device']}, {versions}."]
    lines += [
        "The sampling error is the standard deviation that a finite test set gives a rate. "
        "Differences are paired by seed (same order of the images, same initial kernels where the "
        "shapes agree); the interval is a t interval of 95 %."
    ]
    return "\n".join(lines) + "\n"


def save_figure(study: Study, record: Mapping[str, Any], path: Path) -> None:
    """Draw the curves of a study, or else the main quantity: each seed and its mean."""
    curves = study.curves
    columns = 2 if len(curves) > 1 else 1
    rows = -(-len(curves) // columns)
    height = 4.2 * rows + 0.6 if curves else 2.2 + 0.6 * len(study.arms)
    figure = report.make_figure(5.5 * columns + (1 if curves else 2), height)
    title = f"{study.name}: {study.claim}"
    if record["quick"]:
        title += "\n(quick trial: two epochs on a few images, one seed)"
    figure.suptitle(title, fontsize=11, wrap=True)
    if curves:
        all_axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
        for axes in all_axes[len(curves) :]:
            axes.axis("off")
        for axes, curve in zip(all_axes, curves, strict=False):
            _draw_curve(axes, curve, record)
    else:
        all_axes = [figure.subplots()]
        _draw_dots(all_axes[0], study, record)
    legend = dict(zip(*reversed(all_axes[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        legend.values(),
        legend,
        loc="outside lower center",
        ncols=2 if len(curves) == 1 else 3,
        markerscale=1 if curves else 0.6,
        frameon=False,
    )
    report.save_figure(figure, path)


def _columns(study: Study) -> list[str]:
    published = ["published"] if any(arm.published for arm in study.arms) else []
    baseline = "the row above" if study.stepwise else study.arms[0].name
    differences = [f"paired difference from {baseline}"] if len(study.arms) > 1 else []
    verdict = ["verdict"] if published else []
    sampling = ["sampling error"] if study.is_rate else []
    return ["measured", *sampling, *published, *verdict, *differences, *study.also.values()]


def _row(study: Study, name: str, arm: dict[str, Any]) -> list[str]:
    row = [name, measured_text(arm)]
    row += [f"± {arm['sampling_std']:.2f}"] if study.is_rate else []
    if any(each.published for each in study.arms):
        published = arm["published"]
        row += [f"{published['value']:g}" if published else "", arm["verdict"]]
    row += [arm["conclusion"]] if len(study.arms) > 1 else []
    return [*row, *map(_also_text, arm["also"].values())]


def _also_text(each: dict[str, Any]) -> str:
    published = each.get("published")
    return measured_text(each) + (f" (published: {published['value']:g})" if published else "")


def _derived(derived: dict[str, Any]) -> list[str]:
    """Return a line for each number that is computed from all arms."""
    lines = []
    for each in derived.values():
        if each["values"]:
            low, high = each.get("low"), each.get("high")
            std = "" if each["std"] is None else f" ± {each['std']:.2g}"
            interval = "" if low is None else f", 95 % interval {low:.3g} to {high:.3g}"
            lines.append(f"- {each['label']}: {each['mean']:.3g}{std}{interval}")
    return [*lines, ""] if lines else []


def _sources(study: Study) -> list[str]:
    """Return a list of the published figures, those of one source in one line."""
    found: dict[str, list[str]] = {}
    for arm in study.arms:
        for each in (arm.published, *arm.also_published.values()):
            if each:
                values = found.setdefault(f"{each.source} ({each.how})", [])
                values += [f"{each.value:g}"] if f"{each.value:g}" not in values else []
    lines = [f"- {', '.join(values)}: {source}" for source, values in found.items()]
    return ["Published figures:", "", *lines, ""] if lines else []


def _rates(study: Study, tried: dict[str, Any]) -> list[str]:
    """Return the table of the learning rates that were tried."""
    if not tried:
        return []
    number = study.trial_epochs
    after = f", after {number} epoch{'s' if number > 1 else ''}" if number else ""
    names = sorted({name for each in tried.values() for name in each["val_error"]}, key=float)
    lines = [
        "Each arm has the learning rate of the smallest error (%) on a twelfth of the "
        f"training images, held out with seed 0{after}:",
        "",
        cells(["arm", *names, "chosen"]),
        cells(["---"] * (len(names) + 2)),
    ]
    for arm, each in tried.items():
        val = each["val_error"]
        errors = [f"{val[name]:.2f}" if name in val else "" for name in names]
        lines.append(cells([arm, *errors, f"{each['chosen']:g}"]))
    return [*lines, ""]


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def cells(texts: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(texts)} |"


def measured_text(arm: dict[str, Any]) -> str:
    """Return mean and standard deviation of a quantity."""
    std = "" if arm["std"] is None else f" ± {arm['std']:.2f}"
    return f"{arm['mean']:.2f}{std}"


def _draw_curve(axes: Axes, curve: Curve, record: Mapping[str, Any]) -> None:
    for number, (name, arm) in enumerate(record["arms"].items()):
        values = np.array(arm["curves"][curve.quantity])
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "linestyle": "-" if number < 10 else "--",
        }
        xs = curve.x[: values.shape[1]]  # a quick trial has fewer epochs
        axes.plot(xs, values.mean(0), "o", markersize=3, label=name, **style)
        axes.fill_between(xs, values.min(0), values.max(0), alpha=0.15, color=style["color"])
    for marker, (source, points) in zip("x+1", curve.published.items(), strict=False):
        axes.plot(*zip(*points.items(), strict=True), f"k{marker}", label=source)
    for x, text in curve.marks.items():
        axes.axvline(x, color="0.5", linewidth=0.8, linestyle=":")
        axes.annotate(
            text,
            (x, 0.98),
            (-3, 0),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            rotation=90,
            ha="right",
            va="top",
            fontsize=8,
            color="0.3",
        )
    if all(isinstance(x, int) for x in curve.x):
        axes.locator_params("x", integer=True)
    axes.set(xlabel=curve.x_label, ylabel=curve.y_label)
    axes.grid(alpha=0.3)


def _draw_dots(axes: Axes, study: Study, record: Mapping[str, Any]) -> None:
    names = list(record["arms"])
    for row, arm in enumerate(record["arms"].values()):
        values = arm["values"]
        axes.plot(values, [row] * len(values), "o", color="C0", alpha=0.5, label="a seed")
        axes.plot([arm["mean"]], [row], "|", color="black", markersize=22, label="mean")
        if published := arm["published"]:
            error = published["num_examples"] and 1.96 * sampling_std(
                published["value"], published["num_examples"]
            )
            axes.errorbar(
                [published["value"]],
                [row - 0.2],
                xerr=error or None,
                fmt="D",
                color="C3",
                capsize=3,
                label="published, with its sampling error",
            )
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=study.label, ylim=(len(names) - 0.4, -0.6))
    axes.grid(alpha=0.3, axis="x")
