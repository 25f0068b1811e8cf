"""Training and inference in PyTorch, written as in PyTorch's tutorials."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxcnn.benchmarks.job import (
    LEARNING_RATE,
    MNIST_SIZE,
    Job,
    Prepared,
    normalized,
    random_images,
)
from jaxcnn.benchmarks.torch_networks import NETWORKS
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
        torch.backends.cudnn.benchmark = True  # chooses the fastest convolutions, as XLA does
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
    run = {"train": train, "infer": infer, "epoch": epoch}[job.what]
    peak_bytes = torch.cuda.max_memory_allocated if on_gpu else None
    return Prepared(run, name, versions, peak_bytes=peak_bytes)


def _forward_and_step(
    job: Job, torch: Any, build: Callable[[Any], Any], device: Any, layout: Any
) -> tuple[Callable[[Any], Any], Callable[[Any, Any], None]]:
    """Return the forward pass, and the training step of images and labels."""
    torch.manual_seed(0)
    model = build(torch).to(device, memory_format=layout)
    model.train(job.what != "infer")
    # On a GPU, use fused optimizers and CUDA graphs.
    fused, mode = (True, "reduce-overhead") if device.type == "cuda" else (None, None)
    if job.adam:
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=fused)
    else:
        optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, job.momentum, fused=fused)
    loss_fn = getattr(model, "loss_fn", torch.nn.functional.cross_entropy)
    if job.variant == "compile":
        model = torch.compile(model, mode=mode)

    def logits(images: Any) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=job.dtype == "bfloat16"):
            return model(images)

    def train_step(images: Any, labels: Any) -> None:
        optimizer.zero_grad()
        loss_fn(logits(images).float(), labels).backward()
        optimizer.step()

    return logits, train_step
