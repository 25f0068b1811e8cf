"""The networks and their training in PyTorch, written as in PyTorch's tutorials."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn.benchmarks.job import (
    LEARNING_RATE,
    MNIST_SIZE,
    MOMENTUM,
    Job,
    Prepared,
    normalized,
    random_images,
)
from jaxcnn.errors import UserError, lookup

VARIANTS = ("eager", "channels-last", "compile")


def prepare(job: Job) -> Prepared:
    """Prepare the job in PyTorch, on a GPU if PyTorch finds one.

    Raises:
      UserError: PyTorch is not installed, or the network is not in NETWORKS.
    """
    try:
        # Not an import statement, because type checkers run without PyTorch.
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError:
        raise UserError("PyTorch is not installed; run: pip install -e '.[torch]'") from None
    build, default_shape = lookup("network of the torch side", job.network, NETWORKS)
    shape = job.image_shape(default_shape)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.set_float32_matmul_precision("high")  # TF32, JAX's default on a GPU
    channels_last = job.variant == "channels-last" or (job.variant == "compile" and on_gpu)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits, train_step = _forward_and_step(job, torch, build, device, layout)

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def nchw(images: np.ndarray) -> Any:
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    raw, raw_labels = random_images(MNIST_SIZE if job.what == "epoch" else job.batch_size, shape)
    labels = torch.from_numpy(raw_labels).long().to(device)
    if job.what == "epoch":
        stored = nchw(raw).to(device)
    else:
        images = nchw(normalized(raw)).to(device)

    def train(num_steps: int) -> None:
        for _ in range(num_steps):
            train_step(images, labels)
        wait()

    @torch.inference_mode()
    def infer(num_steps: int) -> None:
        for _ in range(num_steps):
            logits(images)
            wait()

    def epoch(num_steps: int) -> None:
        for _ in range(num_steps):
            order = torch.randperm(MNIST_SIZE, device=device)[: job.images_per_step]
            for rows in order.split(job.batch_size):
                train_step(stored[rows].float().div_(127.5).sub_(1), labels[rows])
        wait()

    name = torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__}
    return Prepared({"train": train, "infer": infer, "epoch": epoch}[job.what], name, versions)


def _forward_and_step(
    job: Job, torch: Any, build: Callable[[Any], Any], device: Any, layout: Any
) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]]:
    """Return the forward pass, and the training step of images and labels."""
    torch.manual_seed(0)
    model = build(torch).to(device, memory_format=layout)
    model.train(job.what != "infer")
    if job.adam:
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    else:
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    if job.variant == "compile":
        model = torch.compile(model)
    cross_entropy = torch.nn.functional.cross_entropy

    def logits(images: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=job.dtype == "bfloat16"):
            return model(images)

    def train_step(images: Any, labels: Any) -> None:
        optimizer.zero_grad()
        cross_entropy(logits(images).float(), labels).backward()
        optimizer.step()

    return logits, train_step


def lenet5(torch: Any) -> Any:
    """Build the notebook's LeNet-5, without its softmax."""
    t = torch.nn
    return t.Sequential(
        *(t.Conv2d(1, 6, 5, padding=2), t.Sigmoid(), t.AvgPool2d(2)),
        *(t.Conv2d(6, 16, 5), t.Sigmoid(), t.AvgPool2d(2)),
        *(t.Conv2d(16, 120, 5), t.Sigmoid(), t.Flatten()),
        *(t.Linear(120, 84), t.Sigmoid(), t.Linear(84, 10)),
    )


def alexnet(torch: Any) -> Any:
    """Build the layers of torchvision's models/alexnet.py."""
    t = torch.nn
    return t.Sequential(
        *(t.Conv2d(3, 64, 11, stride=4, padding=2), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        *(t.Conv2d(64, 192, 5, padding=2), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        *(t.Conv2d(192, 384, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(384, 256, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(256, 256, 3, padding=1), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        *(t.AdaptiveAvgPool2d(6), t.Flatten()),
        *(t.Dropout(), t.Linear(256 * 6 * 6, 4096), t.ReLU(inplace=True)),
        *(t.Dropout(), t.Linear(4096, 4096), t.ReLU(inplace=True), t.Linear(4096, 1000)),
    )


def alexnet_2012(torch: Any) -> Any:
    """Build the paper's AlexNet; alpha is multiplied by 5, because PyTorch divides it by 5."""
    t = torch.nn

    def lrn() -> Any:
        return t.LocalResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)

    return t.Sequential(
        t.ZeroPad2d((0, 3, 0, 3)),
        *(t.Conv2d(3, 96, 11, stride=4), t.ReLU(inplace=True), lrn(), t.MaxPool2d(3, 2)),
        t.Conv2d(96, 256, 5, padding=2, groups=2),
        *(t.ReLU(inplace=True), lrn(), t.MaxPool2d(3, 2)),
        *(t.Conv2d(256, 384, 3, padding=1), t.ReLU(inplace=True)),
        *(t.Conv2d(384, 384, 3, padding=1, groups=2), t.ReLU(inplace=True)),
        *(t.Conv2d(384, 256, 3, padding=1, groups=2), t.ReLU(inplace=True), t.MaxPool2d(3, 2)),
        t.Flatten(),
        *(t.Linear(256 * 6 * 6, 4096), t.ReLU(inplace=True), t.Dropout()),
        *(t.Linear(4096, 4096), t.ReLU(inplace=True), t.Dropout(), t.Linear(4096, 1000)),
    )


# Name -> constructor, and shape of an image: height, width, channels.
NETWORKS = {
    "lenet5": (lenet5, (28, 28, 1)),
    "alexnet": (alexnet, (224, 224, 3)),
    "alexnet-2012": (alexnet_2012, (224, 224, 3)),
}
