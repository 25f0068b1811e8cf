"""The sizes that a convolution and its two gradients share."""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxcnn.layers.padding import Pads

NHWC = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """A convolution but for the number of its images, channels and features.

    The shapes below follow from any two of images, kernel and outputs, which may have leading axes.
    """

    image_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    strides: tuple[int, ...]
    pads: Pads
    groups: int

    @property
    def output_size(self) -> tuple[int, ...]:
        """Return the number of rows and columns of outputs."""
        return tuple(
            (n + low + high - k) // s + 1 for n, k, s, (low, high) in zip(*self[:4], strict=True)
        )

    def output_shape(self, images: Any, kernel: Any) -> tuple[int, ...]:
        """Return the shape of the outputs."""
        return (*images.shape[:-3], *self.output_size, kernel.shape[-1])

    def image_shape(self, outputs: Any, kernel: Any) -> tuple[int, ...]:
        """Return the shape of the images."""
        return (*outputs.shape[:-3], *self.image_size, self.groups * kernel.shape[-2])

    def kernel_shape(self, images: Any, outputs: Any) -> tuple[int, ...]:
        """Return the shape of the kernel, [*kernel_size, channels of a group, features]."""
        channels = images.shape[-1] // self.groups
        return (*images.shape[:-4], *self.kernel_size, channels, outputs.shape[-1])

    def unit_stride(self) -> Geometry:
        """Return the geometry of one group, by blocks of pixels if there is a stride.

        See `_space_to_depth` in `lowering.py`: as many blocks as there are outputs, and as the
        kernel reaches beyond the last.
        """
        if self.strides == (1, 1):
            return self._replace(groups=1)
        blocks = tuple(-(-k // s) for k, s in zip(self.kernel_size, self.strides, strict=True))
        image = tuple(n + b - 1 for n, b in zip(self.output_size, blocks, strict=True))
        return Geometry(image, blocks, (1, 1), ((0, 0), (0, 0)), groups=1)
