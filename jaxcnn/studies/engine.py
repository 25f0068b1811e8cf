"""Run a study: train what is missing, measure each run, sum up, and write the report."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxcnn import config as configs
from jaxcnn import records, report
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError, lookup
from jaxcnn.evaluation.jobs import Job, train_jobs
from jaxcnn.evaluation.jobs_progress import show_progress
from jaxcnn.files import write_atomically
from jaxcnn.studies import measures
from jaxcnn.studies.catalogue import STUDIES
from jaxcnn.studies.report import print_summary, save_figure, to_markdown
from jaxcnn.studies.study import Arm, Measured, Study, folder_of
from jaxcnn.studies.summary import summarize
from jaxcnn.training.validate import validated
from jaxcnn.workdir.folder import default_workdir
from jaxcnn.workdir.listing import list_runs


def run_study(
    study: str | Study,
    *,
    seeds: Sequence[int] | None = None,
    quick: bool = False,
    arms: Sequence[str] = (),
    jobs: int | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run a study, print its result, and write it to `runs/studies/NAME/`.

    Finished runs in `runs/` with the same config are used, whoever trained them; the others are
    trained there. An interrupted study continues when the call is repeated.

    Args:
      study: a study, or its name in STUDIES.
      seeds: the seeds; by default 0 up to the study's own number.
      quick: train one seed for two epochs on `mnist5k`, to try the study out.
      arms: names of the arms to run; by default all.
      jobs: number of runs that train at a time; see `train_jobs`.
      command: command for the report.

    Returns:
      The content of `study.json`.

    Raises:
      UserError: there is no such study or arm, or a config is refused.
      RunError: a run failed or was stopped by a signal.
    """
    study = lookup("study", study, STUDIES) if isinstance(study, str) else study
    seeds = list(seeds) if seeds else list(range(1 if quick else study.num_seeds))
    study = _chosen(study, arms)
    if quick:
        study = _quick(study)
    folder = folder_of(study.name, quick=quick)
    folder.mkdir(parents=True, exist_ok=True)
    runs = _find_or_train(study, seeds, jobs)
    measured = _measure(study, runs, folder / "measured.json")
    summary = summarize(study, seeds, measured)
    record = {
        "study": study.name,
        "quick": quick,
        "command": command or f"python scripts/study.py {study.name}",
        "device": _device(),
        "versions": {name: metadata.version(name) for name in ("jax", "flax", "jaxcnn")},
        "runs": {arm: [str(runs[arm, seed]) for seed in seeds] for arm in summary["arms"]},
        **summary,
    }
    write_atomically(folder / "study.json", json.dumps(record, indent=2) + "\n")
    for extension in ("png", "svg"):
        save_figure(study, record, folder / f"figure.{extension}")
    write_atomically(folder / "report.md", to_markdown(study, record))
    print_summary(study, record)
    report.say(f"Written: {folder}")
    return record


def compare(
    arms: dict[str, TrainConfig],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    quick: bool = False,
    jobs: int | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Compare the test errors of configs over seeds, paired by seed; see `run_study`.

    Args:
      arms: name -> config; the first is the baseline.
      seeds: the seeds.
      quick: see `run_study`.
      jobs: see `run_study`.
      command: command for the report.
    """
    if not seeds:
        raise UserError("`seeds` is empty; expected at least one seed")
    if len(arms) < 2:
        raise UserError(f"there is {len(arms)} arm; expected at least two to compare")
    study = Study(
        name="compare",
        claim="The arms differ in test error.",
        source="your question",
        arms=tuple(Arm(name, config) for name, config in arms.items()),
        quantity="test_error",
        label="test error (%)",
        measure=measures.test_error,
        falsifier="The interval of the paired difference includes 0.",
    )
    return run_study(
        study, seeds=seeds[:1] if quick else seeds, quick=quick, jobs=jobs, command=command
    )


def train(study: Study, seed: int, *, arms: Sequence[str] = ()) -> None:
    """Train the arms of a study with one seed, as a job of a batch system, and measure nothing."""
    _find_or_train(_chosen(study, arms), [seed], None)


def missing_runs(
    study: Study, seeds: Sequence[int], *, arms: Sequence[str] = ()
) -> list[tuple[Arm, int]]:
    """Return the arms and seeds for which there is no finished run."""
    known = _finished()
    return [
        (arm, seed)
        for arm in _chosen(study, arms).arms
        for seed in seeds
        if _existing(_with_seed(arm, seed), known) is None
    ]


def _chosen(study: Study, names: Sequence[str]) -> Study:
    by_name = {arm.name: arm for arm in study.arms}
    chosen = [lookup(f"arm of {study.name}", name, by_name) for name in names]
    return dataclasses.replace(study, arms=tuple(chosen) or study.arms)


def _quick(study: Study) -> Study:
    arms = []
    for arm in study.arms:
        config = dataclasses.replace(
            arm.config, preset="custom", dataset="mnist5k", epochs=2, eval_every_epochs=2
        )
        arms.append(dataclasses.replace(arm, config=config, published=None))
    return dataclasses.replace(study, arms=tuple(arms))


def _with_seed(arm: Arm, seed: int) -> TrainConfig:
    config = dataclasses.replace(arm.config, seed=seed)
    return validated(dataclasses.replace(config, workdir=default_workdir(config)))


def _finished() -> list[tuple[TrainConfig, Path]]:
    if not Path("runs").is_dir():
        return []
    try:
        runs = list_runs(["runs"])
    except UserError:  # there is no run yet
        return []
    return [(run.config, run.path) for run in runs if run.config and run.state == "finished"]


def _existing(config: TrainConfig, known: Sequence[tuple[TrainConfig, Path]]) -> Path | None:
    # `differences` takes all folders of images for one that has moved; here they are compared.
    return next(
        (
            path
            for other, path in known
            if config.dataset == other.dataset and not configs.differences(config, other)
        ),
        None,
    )


def _find_or_train(
    study: Study, seeds: Sequence[int], at_a_time: int | None
) -> dict[tuple[str, int], Path]:
    """Return the run folder of each arm and seed, after training those that are missing."""
    known, runs, jobs = _finished(), dict[tuple[str, int], Path](), list[Job]()
    for seed in seeds:  # all arms of a seed first, so that an interrupted study is paired
        for arm in study.arms:
            config = _with_seed(arm, seed)
            path = _existing(config, known)
            if path is None:
                path = Path(config.workdir or "")
                if taken := [job.name for job in jobs if job.config.workdir == config.workdir]:
                    raise UserError(
                        f"{arm.name}, seed {seed}, and {taken[0]} would both be kept in {path}; "
                        "expected folders of images with different names; rename one"
                    )
                jobs.append(Job(f"{arm.name}, seed {seed}", config))
                known.append((config, path))
            runs[arm.name, seed] = path
    num_runs = len(study.arms) * len(seeds)
    report.say(
        f"{study.name}: {len(study.arms)} arms x {len(seeds)} seeds, {num_runs - len(jobs)} of "
        f"{num_runs} runs are there already; about {report.duration(study.seconds * len(jobs))} "
        "on two cores"
    )
    if jobs:
        with show_progress(jobs, only_ends=True) as watch:
            train_jobs(jobs, watch, at_a_time=at_a_time)
    return runs


def _measure(
    study: Study, runs: dict[tuple[str, int], Path], cache: Path
) -> dict[tuple[str, int], Measured]:
    """Measure each run once; the results are kept in a file from call to call."""
    kept: dict[str, Any] = records.read(cache) if cache.exists() else {}
    measured = {}
    for (arm, seed), path in runs.items():
        result = (path / "result.json").read_text()
        entry = kept.get(str(path))
        if entry is None or entry["result"] != result:
            report.say(f"measuring {path}")
            entry = {"result": result, "measured": dict(study.measure(path))}
            kept[str(path)] = entry
            write_atomically(cache, json.dumps(kept) + "\n")
        measured[arm, seed] = entry["measured"]
    return measured


def _device() -> str:
    import jax  # late: training processes may need the accelerator that jax would take

    devices = jax.devices()
    kind, cores = devices[0].device_kind, os.cpu_count()
    name = report.device_name(kind)
    return f"{cores} cores of an {name}" if kind == "cpu" else f"{len(devices)} x {name}"
