"""A run in PyTorch, as a process: python -m jaxcnn.benchmarks.torch_job CONFIG DATA.

CONFIG is the config.json of a run of ours, DATA an .npz file with the arrays of its dataset. The
network, its initial values, the recipe and the test are the run's; the random numbers are not.
The job is written for the shortest time on a CPU: the images are normalized once and kept in one
tensor, no loader copies them, and Adam is fused.
"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxcnn import config as configs
from jaxcnn.benchmarks.torch_networks import NETWORKS
from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.transforms import RandomCrop

# The networks with linen's initial values.
MODELS = ("lenet5", "lenet5-relu", "lenet5-relu:padding=valid")
SCHEDULES = ("constant", "linear")
# Fields that a config may set: the job reads them, or they do not change what is learned.
FIELDS = {
    *("model", "dataset", "transforms", "pixel_mean", "pixel_std", "batch_size", "epochs", "seed"),
    *("optimizer.learning_rate", "optimizer.schedule", "optimizer.warmup_epochs"),
    *("log_every_steps", "eval_every_epochs"),
}
DEVIATION = 0.8796256610342398  # of a standard normal distribution, cut at two deviations
SIZE = 28  # height and width of the images
TEST_BATCH_SIZE = 1000


def supports(config: TrainConfig) -> bool:
    """Return whether the job can run a config, which may differ from the default in FIELDS."""
    changed = configs.differences(config, TrainConfig())
    return (
        config.model in MODELS
        and config.transforms in ((), (RandomCrop(SIZE, padding=_padding(config)),))
        and config.optimizer.schedule in SCHEDULES
        and FIELDS.issuperset(changed)
    )


def rate(optimizer: OptimizerConfig, step: int, warmup_steps: int, total_steps: int) -> float:
    """Return the learning rate of a step, as `optim.schedules` does."""
    if step < warmup_steps:
        return optimizer.learning_rate * step / warmup_steps
    if optimizer.schedule == "constant":
        return optimizer.learning_rate
    return optimizer.learning_rate * (total_steps - step) / (total_steps - warmup_steps)


def main(config_file: str, data_file: str) -> None:
    """Train and test, and print the test accuracy."""
    config = configs.from_json(Path(config_file).read_text())
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(config.seed)
    with np.load(data_file) as arrays:
        images, labels, test_images, test_labels = (
            torch.from_numpy(arrays[name])
            for name in ("train_images", "train_labels", "test_images", "test_labels")
        )
    model = NETWORKS[config.model][0](torch).to(memory_format=torch.channels_last)
    initialize(torch, model)
    train(torch, config, model, images, labels.long())
    correct = 0
    with torch.inference_mode():
        for batch, answers in zip(
            normalized(config, test_images[..., 0]).split(TEST_BATCH_SIZE),
            test_labels.split(TEST_BATCH_SIZE),
            strict=True,
        ):
            correct += int((model(batch[:, None]).argmax(1) == answers).sum())
    print(f"Test Accuracy: {100 * correct / len(test_images):.2f}%")


def train(torch: Any, config: TrainConfig, model: Any, images: Any, labels: Any) -> None:
    """Train on raw images [examples, 28, 28, 1] and their labels."""
    num_images, padding = len(images), _padding(config)
    padded = torch.nn.functional.pad(images[..., 0], [padding] * 4)
    # A view of all shifts: [examples, vertical shifts, horizontal shifts, 28, 28].
    shifts = normalized(config, padded).unfold(1, SIZE, 1).unfold(2, SIZE, 1)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    steps_per_epoch = num_images // config.batch_size
    warmup_steps = round(config.optimizer.warmup_epochs * steps_per_epoch)
    total_steps = config.epochs * steps_per_epoch
    for step in range(total_steps):
        if step % steps_per_epoch == 0:
            order = torch.randperm(num_images)
            down, right = torch.randint(2 * padding + 1, (2, num_images))
        at = slice(step % steps_per_epoch * config.batch_size, None)
        rows, down_by, right_by = (each[at][: config.batch_size] for each in (order, down, right))
        optimizer.param_groups[0]["lr"] = rate(config.optimizer, step, warmup_steps, total_steps)
        optimizer.zero_grad()
        logits = model(shifts[rows, down_by, right_by][:, None])
        torch.nn.functional.cross_entropy(logits, labels[rows]).backward()
        optimizer.step()


def normalized(config: TrainConfig, images: Any) -> Any:
    """Return the preprocessed images of raw ones, in any shape."""
    mean, std = config.pixel_mean[0], config.pixel_std[0]
    return images.float().mul_(1 / (255 * std)).sub_(mean / std)


def initialize(torch: Any, model: Any) -> None:
    """Draw linen's default initial values: kernels of variance 1 / fan-in, and biases of 0."""
    for layer in model:
        if hasattr(layer, "weight"):
            std = 1 / math.sqrt(layer.weight[0].numel()) / DEVIATION
            torch.nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            torch.nn.init.zeros_(layer.bias)


def _padding(config: TrainConfig) -> int:
    return getattr(config.transforms[0], "padding", 0) if config.transforms else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
