"""Repeated epochs of jaxcnn's own training loop."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from jaxcnn.benchmarks.job import LEARNING_RATE, MNIST_SHAPE, MNIST_SIZE, Job, Run, random_images
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.datasets import Dataset
from jaxcnn.errors import UserError
from jaxcnn.models.variants import image_shape
from jaxcnn.training import progress as training_progress
from jaxcnn.training.experiment import Experiment
from jaxcnn.training.train import train
from jaxcnn.workdir.checkpoints import Checkpoints


def epochs(job: Job) -> Run:
    """Prepare epochs of training with logs and checkpoints, and hardly any evaluation.

    Raises:
      UserError: the network is not for MNIST's images, or the type is not float32.
    """
    if image_shape(job.network) != MNIST_SHAPE or job.dtype != "float32":
        raise UserError(
            f"the network is {job.network} and `dtype` is {job.dtype}; expected a lenet5 network "
            "and float32 for `what` epoch, whose images are MNIST's size; choose those, or "
            "`what` train"
        )
    images, labels = random_images(MNIST_SIZE, MNIST_SHAPE)
    digits = tuple("0123456789")
    dataset = Dataset("random", images, labels, images[:10], labels[:10], digits)
    config = TrainConfig(
        model=job.network,
        dataset="random",
        optimizer=OptimizerConfig(
            "adam" if job.adam else "sgd", LEARNING_RATE, momentum=job.momentum
        ),
        batch_size=job.batch_size,
        epochs=1,
        eval_batch_size=10,
        compilation_cache=False,
    )
    experiment = Experiment(config, dataset=dataset)
    progress = training_progress.Run(experiment.state, experiment.no_metrics(), time.perf_counter())

    def run(num_steps: int) -> None:
        for _ in range(num_steps):
            experiment.total_steps = progress.step + experiment.steps_per_epoch
            with tempfile.TemporaryDirectory() as folder:
                with Checkpoints(Path(folder, "checkpoints")) as checkpoints:
                    train(experiment, progress, checkpoints, Path(folder))

    return run
