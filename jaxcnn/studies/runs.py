"""Find the runs of a study that are there already, and train the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jaxcnn import config as configs
from jaxcnn import report
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.evaluation.jobs import Job, train_jobs
from jaxcnn.evaluation.jobs_progress import show_progress
from jaxcnn.studies.study import Arm, Study
from jaxcnn.training.validate import validated
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.folder import default_workdir
from jaxcnn.workdir.listing import list_runs


def missing_runs(study: Study, seeds: Sequence[int]) -> list[tuple[Arm, int]]:
    """Return the arms and seeds for which there is no finished run."""
    known, missing = _finished(), list[tuple[Arm, int]]()
    for arm in trained(study):
        for seed in seeds:
            config = with_seed(arm, seed)
            if _existing(config, known) is None:
                missing.append((arm, seed))
                known.append((config, Path(config.workdir or "")))  # arms may share a run
    return missing


def trained(study: Study) -> list[Arm]:
    """Return the arms that are trained; the others are fitted when they are measured."""
    return [arm for arm in study.arms if arm.fit is None]


def with_seed(arm: Arm, seed: int) -> TrainConfig:
    """Return the config of an arm with a seed, as its run keeps it."""
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


def find_or_train(
    study: Study, seeds: Sequence[int], at_a_time: int | None = None
) -> dict[tuple[str, int], Path]:
    """Return the run folder of each arm and seed, after training those that are missing."""
    known, runs, jobs = _finished(), dict[tuple[str, int], Path](), list[Job]()
    for seed in seeds:  # all arms of a seed first, so that an interrupted study is paired
        for arm in trained(study):
            config = with_seed(arm, seed)
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
    num_runs = len(set(runs.values()))
    report.say(
        f"{study.name}: {len(study.arms)} arms x {len(seeds)} seeds, {num_runs - len(jobs)} of "
        f"{num_runs} runs are there already; about {report.duration(study.seconds * len(jobs))} "
        "on two cores"
    )
    if jobs:
        with show_progress(jobs, only_ends=True) as watch:
            train_jobs(jobs, watch, at_a_time=at_a_time)
    return runs


def runs_of_seeds(run: Path, seeds: Sequence[int]) -> list[Path]:
    """Return the finished runs below `runs/` that differ from a run in nothing but the seed.

    Args:
      run: folder of a run.
      seeds: seeds of the runs to find.

    Raises:
      UserError: there is no finished run of a seed.
    """
    arm, known = Arm("", workdirs.read_config(run)), _finished()
    found = {seed: _existing(with_seed(arm, seed), known) for seed in seeds}
    if missing := [str(seed) for seed, path in found.items() if path is None]:
        raise UserError(
            f"runs/ has no finished run of {run} with seed {', '.join(missing)}; train it first"
        )
    return [path for path in found.values() if path]
