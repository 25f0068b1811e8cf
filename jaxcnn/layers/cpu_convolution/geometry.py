"""The sizes that a convolution and its two gradients share.

AlexNet's conv1 has images of 224x224, a kernel of 11x11, stride 4 and padding 2. The output has
(224 + 2 + 2 - 11) // 4 + 1 = 55 rows. In blocks of 4x4 pixels the kernel has ceil(11 / 4) = 3
rows, so that at stride 1 the images need 55 + 3 - 1 = 57 rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from jaxcnn.layers.padding import Pads

NHWC = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """Sizes of a convolution except the numbers of images, channels and features.

    Each shape method derives the shape of images, kernel or outputs from those of the other two.
    All three may have leading axes.

    Attributes:
      image_size: height and width of the images.
      kernel_size: height and width of the kernel.
      strides: vertical and horizontal stride.
      pads: (low, high) padding of the height and of the width.
      groups: number of feature groups.
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
            int(n + low + high - k) // s + 1 for n, k, s, (low, high) in zip(*self[:4], strict=True)
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
        """Return the geometry of one group at stride 1.

        With a stride, the images are padded and each block of stride x stride pixels becomes one
        pixel with more channels, as in `images_space_to_depth` in `lowering.py`.
        """
        if self.strides == (1, 1):
            return self._replace(groups=1)
        blocks = tuple(-(-k // s) for k, s in zip(self.kernel_size, self.strides, strict=True))
        image = tuple(n + b - 1 for n, b in zip(self.output_size, blocks, strict=True))
        return Geometry(image, blocks, (1, 1), ((0, 0), (0, 0)), groups=1)
