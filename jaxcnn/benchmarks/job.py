"""The work of one process of a benchmark; imports neither jax nor torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, Int32, UInt8

LEARNING_RATE = 1e-3
MOMENTUM = 0.9
MNIST_SIZE, MNIST_SHAPE = 60_000, (28, 28, 1)
COPY_BYTES = 2**28  # many times any cache

Run = Callable[[int], None]
"""Function that runs a number of steps and waits until the device has finished."""


@dataclasses.dataclass(frozen=True)
class Job:
    """The work of one process.

    Attributes:
      side: a key of `worker.SIDES`.
      variant: variant of the side, or "".
      network: a name in MODELS.
      what: "train", "infer" or "epoch"; a step is a training step, a forward pass or an epoch.
      batch_size: images in a batch.
      dtype: type of the computation, "float32" or "bfloat16"; parameters are float32.
      image_size: height and width of the images; None is the default size of the network.
    """

    side: str
    variant: str
    network: str
    what: str
    batch_size: int
    dtype: str
    image_size: int | None = None

    def image_shape(self, default: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape of an image; `default` is the network's."""
        if self.image_size is None:
            return default
        return self.image_size, self.image_size, default[-1]

    @property
    def adam(self) -> bool:
        """Return whether the optimizer is Adam, as for LeNet-5; other networks use SGD."""
        return self.network.startswith("lenet5") and not self._of_1998

    @property
    def momentum(self) -> float:
        """Return SGD's momentum: 0 for LeNet-5 of 1998, whose own rule PyTorch lacks."""
        return 0.0 if self._of_1998 else MOMENTUM

    @property
    def _of_1998(self) -> bool:
        return self.network.startswith("lenet5-1998")

    @property
    def images_per_step(self) -> int:
        """Return the number of images in a step; an epoch has whole batches only."""
        if self.what == "epoch":
            return MNIST_SIZE // self.batch_size * self.batch_size
        return self.batch_size


def full_name(side: str, variant: str) -> str:
    """Return the name of a side with its variant, such as `torch eager`."""
    return side if side.endswith(variant) else f"{side} {variant}"


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A job that is ready to run.

    Attributes:
      run: function that runs a number of steps.
      device: name of the device.
      versions: package -> version.
      flops: useful operations of a step, if the side can count them.
      peak_bytes: function that returns the peak memory of a GPU or TPU; None on a CPU, where it is
        that of the process.
    """

    run: Run
    device: str
    versions: dict[str, str]
    flops: int | None = None
    peak_bytes: Callable[[], int] | None = None


def random_images(
    num: int, shape: tuple[int, ...]
) -> tuple[UInt8[np.ndarray, "num height width channels"], Int32[np.ndarray, " num"]]:
    """Return random images and labels, equal for every side."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (num, *shape), np.uint8)
    return images, rng.integers(0, 10, num, np.int32)


def normalized(images: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Scale pixels to [-1, 1], float32."""
    return images.astype(np.float32) / np.float32(127.5) - 1
