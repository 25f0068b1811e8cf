"""LeNet-1 and LeNet-4, the forerunners of LeNet-5."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxcnn.layers.convolution import linen_conv
from jaxcnn.models.checks import check_images
from jaxcnn.models.initializers import lecun_layer, lecun_uniform
from jaxcnn.models.lenet_1998 import BACKGROUND, Subsampling, TableConv, squash

# The maps of H2 that each map of H3 is connected to.
LENET1_TABLE = (
    *((0,), (0, 1), (0, 1), (1,), (0, 1), (0, 1)),
    *((2,), (2, 3), (2, 3), (3,), (2, 3), (2, 3)),
)

# The maps of S2 that each map of C3 is connected to: neighbours, then maps that are 3 apart.
LENET4_TABLE = tuple(
    tuple(sorted((i + distance * step) % 8 for step in range(3)))
    for distance in (1, 3)
    for i in range(8)
)


def _layers(dtype: Any) -> list[Callable[..., Callable[[Array], Array]]]:
    """Return constructors: a 5x5 convolution, one by a table, subsampling, a dense layer."""
    conv = partial(linen_conv, kernel_size=(5, 5), padding="VALID")
    table_conv = partial(TableConv, by_fan_in=lecun_uniform)
    subsampling = partial(Subsampling, by_fan_in=lecun_uniform)
    return [partial(layer, dtype=dtype) for layer in (conv, table_conv, subsampling, nn.Dense)]


class LeNet1(nn.Module):
    """LeNet-1 of LeCun et al. 1990: 2,578 parameters, 98,442 connections.

    H1 has four maps, which H2 halves in height and width. H3 has twelve maps, each connected to one
    or two of those, and H4 halves them. The output is connected to all of H4. Every layer up to H4
    ends in `squash`. The paper of 1998 calls the network LeNet-1 and feeds it digits of 16x16
    pixels, centred in 28x28.

    Choices that differ from the source, or that it leaves open:

    - The paper's outputs end in `squash` and approach +1 and -1 by their mean squared error. This
      network returns logits for cross-entropy, as `LeNet5` does, so that networks of figure 9
      differ in their layers alone, and so that the outputs are probabilities.
    - The table of H3 is from a later reconstruction; its 20 connections give the paper's totals.

    Parameters start uniform with variance 1 / fan-in, as in `lenet5-1998-lecun-uniform`.

    Attributes:
      num_classes: width of the output.
      dtype: type of the computation; parameters stay float32.

    References:
      LeCun, Boser, Denker, Henderson, Howard, Hubbard, Jackel, "Handwritten Digit Recognition with
      a Back-Propagation Network", 1990.
    """

    num_classes: int = 10
    dtype: Any = jnp.float32
    head: ClassVar[str] = "output"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 28 28 channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` changes nothing in this network.

        Raises:
          ValueError: the images are not [batch, 28, 28, channels].
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] == (28, 28)
        check_images(images, fits, "LeNet1", "[batch, 28, 28, channels]")
        conv, table_conv, subsampling, dense = _layers(self.dtype)
        x = squash(
            conv(4, **lecun_layer(25 * images.shape[-1]), name="H1")(images)
        )  # [batch, 24, 24, 4]
        x = squash(subsampling(name="H2")(x))  # [batch, 12, 12, 4]
        x = squash(table_conv(LENET1_TABLE, name="H3")(x))  # [batch, 8, 8, 12]
        x = squash(subsampling(name="H4")(x))  # [batch, 4, 4, 12]
        x = x.reshape(x.shape[0], -1)  # [batch, 192]
        return dense(self.num_classes, **lecun_layer(192), name="output")(x)


class LeNet4(nn.Module):
    """LeNet-4 as the paper of 1998 describes it: 50,698 parameters, 262,306 connections.

    C1 has four maps. S2 halves each of them twice, with two coefficients, which makes eight maps.
    C3 has sixteen maps and S4 halves them. The 120 units of C5 and the output are fully connected.
    Every layer up to C5 ends in `squash`. The input is the 28x28 image in a frame of two pixels, as
    in `LeNet1998`.

    The paper contradicts itself: it prints "about 260,000 connections" and "about 17,000 free
    parameters", but its "fully connected layer" of 120 units alone has 48,120. With 17,000, a unit
    would see four or five of the sixteen maps. This network follows the words; its
    connections agree with the printed number, its parameters do not.

    Choices where the paper is silent:

    - The table of C3: each map sees three maps of S2, which leads to the printed connections.
    - The output returns logits for cross-entropy, as in `LeNet1`.

    Parameters start uniform with variance 1 / fan-in, as in `lenet5-1998-lecun-uniform`.

    Attributes:
      num_classes: width of the output.
      dtype: type of the computation; parameters stay float32.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, section III.C.
    """

    num_classes: int = 10
    dtype: Any = jnp.float32
    head: ClassVar[str] = "output"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 28 28 channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` changes nothing in this network.

        Raises:
          ValueError: the images are not [batch, 28, 28, channels].
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] == (28, 28)
        check_images(images, fits, "LeNet4", "[batch, 28, 28, channels]")
        conv, table_conv, subsampling, dense = _layers(self.dtype)
        frame = ((0, 0), (2, 2), (2, 2), (0, 0))
        x = jnp.pad(images, frame, constant_values=BACKGROUND)  # [batch, 32, 32, channels]
        x = squash(
            conv(4, **lecun_layer(25 * images.shape[-1]), name="C1")(x)
        )  # [batch, 28, 28, 4]
        x = squash(subsampling(multiplier=2, name="S2")(x))  # [batch, 14, 14, 8]
        x = squash(table_conv(LENET4_TABLE, name="C3")(x))  # [batch, 10, 10, 16]
        x = squash(subsampling(name="S4")(x))  # [batch, 5, 5, 16]
        x = squash(conv(120, **lecun_layer(400), name="C5")(x))  # [batch, 1, 1, 120]
        x = x.reshape(x.shape[0], -1)  # [batch, 120]
        return dense(self.num_classes, **lecun_layer(120), name="output")(x)
