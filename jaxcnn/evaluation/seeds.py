"""Train one config with several seeds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError
from jaxcnn.evaluation.jobs import Job, train_jobs
from jaxcnn.evaluation.jobs_progress import show_progress
from jaxcnn.workdir.folder import continued, default_workdir


def train_seeds(
    config: TrainConfig, seeds: Sequence[int], *, continues: bool = False
) -> list[Path]:
    """Train a config once with each seed, as `train_jobs` does, and return the run folders.

    Args:
      config: config whose seed is replaced. Its `workdir`, if given, is the folder of the runs.
      seeds: the seeds.
      continues: make existing runs longer; see `folder.continued`.

    Raises:
      UserError: a seed is out of range or given twice, the run is spread over processes, or there
        is no run to make longer.
      RunError: the run of a seed failed or was stopped by a signal; the others are finished.
    """
    if len({*seeds}) < len(seeds):
        raise UserError(f"`seeds` are {' '.join(map(str, seeds))}; expected each once")
    if config.multihost or config.model_axis > 1:
        raise UserError(
            "`seeds` is given with `multihost` or `model_axis`, which spread one run over devices; "
            "start each seed by itself"
        )
    jobs = [Job(f"seed {seed}", _with_seed(config, seed, continues)) for seed in seeds]
    with show_progress(jobs) as watch:
        train_jobs(jobs, watch)
    return [Path(job.config.workdir or "") for job in jobs]


def _with_seed(config: TrainConfig, seed: int, continues: bool) -> TrainConfig:
    config = dataclasses.replace(config, seed=seed)
    if config.workdir is not None:
        config = dataclasses.replace(config, workdir=os.path.join(config.workdir, f"seed{seed}"))
    if continues:
        return continued(config)
    return dataclasses.replace(config, workdir=config.workdir or default_workdir(config))
