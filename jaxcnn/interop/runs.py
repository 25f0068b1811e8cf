"""Write the network of a run to a file, and make a run from PyTorch's weights."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from jaxcnn import config as configs
from jaxcnn.config import TrainConfig
from jaxcnn.distributed import mesh, processes
from jaxcnn.errors import UserError, lookup
from jaxcnn.files import write_atomically
from jaxcnn.interop.exports import check_name, export
from jaxcnn.interop.torch_weights import TORCH_NAMES, from_torch
from jaxcnn.interop.trained import load_run, make_card
from jaxcnn.interop.weight_files import is_weight_file, read_weights
from jaxcnn.models.variants import base_name
from jaxcnn.paths import local_path
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.progress import Run, save_checkpoint
from jaxcnn.training.validate import validated
from jaxcnn.workdir import dataset_info
from jaxcnn.workdir import folder as workdirs
from jaxcnn.workdir.checkpoints import Checkpoints


def export_run(
    run: Path,
    file: Path,
    *,
    step: int | Literal["best"] | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
    **options: Any,
) -> int:
    """Write the network of a run's checkpoint to a file; its extension chooses the format.

    Args:
      run: folder of the run.
      file: file to write or replace.
      step: step of the checkpoint, or "best" for the best test accuracy; by default the latest.
      data_dir: directory of prepared datasets; by default as in the run.
      manual_dir: directory of original files; by default as in the run.
      **options: see `exports.export`.

    Returns:
      The step of the checkpoint.

    Raises:
      UserError: the folder holds no run or no such checkpoint, the data cannot be read, the format
        does not support the network, or the file cannot be written.
      RunError: the checkpoint is corrupt.
    """
    run, file = local_path(run, "the source"), local_path(file, "the target")
    check_name(file)
    config = workdirs.read_config(run)
    if is_weight_file(file):
        lookup(
            "convertible model", base_name(config.model), TORCH_NAMES
        )  # before the checkpoint is read
    trained = load_run(run, step=step, data_dir=data_dir, manual_dir=manual_dir)
    export(trained, file, make_card(trained, workdirs.read_result(run)), **options)
    return trained.step


def import_run(file: Path, run: Path, config: TrainConfig) -> None:
    """Create a run from a file of weights: its config, and a checkpoint of step 0.

    The run can be evaluated, and `train_and_evaluate` with the same config continues from it.

    Args:
      file: file of PyTorch's weights; see `read_weights` and `from_torch`.
      run: folder of the new run; replaces `config.workdir`.
      config: config with the model, and with the data to evaluate or train on.

    Raises:
      UserError: the file cannot be read or does not fit the model, the config is out of range, its
        data cannot be read, or the folder holds a run or cannot be written.
      RunError: the checkpoint cannot be written.
    """
    file, run = local_path(file, "the source"), local_path(run, "the target")
    processes.check_devices()
    config = validated(dataclasses.replace(config, workdir=str(run)))
    entries = read_weights(file)
    experiment = Experiment(config)
    state = experiment.state
    params = from_torch(config.model, entries, state.params)
    state = state.replace(params=params, opt_state=state.tx.init(params))
    if (run / "config.json").exists() or (run / "checkpoints").exists():
        raise UserError(f"{run} already holds a run; choose another folder")
    with (
        workdirs.lock_run_folder(config) as workdir,
        Checkpoints(workdir / "checkpoints", config) as checkpoints,
    ):
        run_of_step_0 = Run(
            mesh.replicate(state, experiment.mesh), experiment.no_metrics(), time.perf_counter()
        )
        save_checkpoint(run_of_step_0, checkpoints, evaluated=False)
        checkpoints.wait()
        dataset_info.write(workdir, dataset_info.describe(experiment.dataset))
        # Last, because a config without its checkpoint is a run from random parameters.
        write_atomically(workdir / "config.json", configs.to_json(config))
