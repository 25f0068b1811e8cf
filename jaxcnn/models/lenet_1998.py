"""LeNet-5 of 1998, with its own layers: subsampling, Table I, the RBF output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxcnn.layers.convolution import conv_general_dilated, linen_conv, store_gradient
from jaxcnn.layers.pooling import pool
from jaxcnn.models.checks import check_images
from jaxcnn.models.initializers import uniform_by_fan_in

# White in the normalized images; black is 1.175.
BACKGROUND = -0.1

# Table I: the maps of S2 that each map of C3 is connected to.
TABLE_I = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)

_DRAWING = """
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
..###.. ...##.. .#####. .#####. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## ##...## ...###. ##..... .##.... .....## ##...## ##...##
##...## .####.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ######. ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. ##..##. ##...## ######. ....##. .#####. ##...##
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .######
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""

BITMAPS: Float[np.ndarray, "10 12 7"] = np.array(
    [
        [[1.0 if pixel == "#" else -1.0 for pixel in row] for row in rows]
        for rows in zip(*(line.split() for line in _DRAWING.split("\n")[1:-1]), strict=True)
    ],
    np.float32,
)
"""F6's targets, the ten digits: 12 rows of 7 pixels, +1 for ink, -1 for paper."""


def squash(a: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return 1.7159 tanh(2 a / 3), which maps 1 and -1 to themselves (appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * a)


class Subsampling(nn.Module):
    """The sum of each 2x2 square, times the map's coefficient, plus the map's bias.

    Attributes:
      multiplier: number of output maps for each input map, side by side, each with a coefficient
        and a bias of its own.
      by_fan_in: function from a fan-in to the initializer of coefficient and bias.
      dtype: type of the computation; parameters stay float32.
    """

    by_fan_in: Callable[[Any], nn.initializers.Initializer] = uniform_by_fan_in
    dtype: Any = jnp.float32
    multiplier: int = 1

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width maps"]
    ) -> Float[Array, "batch height/2 width/2 features"]:
        """Return the weighted sums, before `squash`."""
        init, features = self.by_fan_in(4), inputs.shape[-1] * self.multiplier
        coefficient = self.param("coefficient", init, (features,))
        bias = self.param("bias", init, (features,))
        inputs, coefficient, bias = nn.dtypes.promote_dtype(
            inputs, coefficient, bias, dtype=self.dtype
        )
        sums = pool(inputs, 0, jnp.add, (2, 2))
        if self.multiplier > 1:
            sums = jnp.repeat(sums, self.multiplier, axis=-1)
        return sums * coefficient.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


class TableConv(nn.Module):
    """A 5x5 VALID convolution whose output maps are each connected to some input maps only.

    `kernel` is [5, 5, connections], with one entry for each pair of maps in the table, output map
    by output map. An absent connection has no parameter to train, decay or count.

    Attributes:
      table: for each output map, the input maps that it is connected to.
      by_fan_in: function from a fan-in to the initializer of kernel and bias.
      dtype: type of the computation; parameters stay float32.
    """

    table: tuple[tuple[int, ...], ...]
    by_fan_in: Callable[[Any], nn.initializers.Initializer] = uniform_by_fan_in
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "batch height width maps"]
    ) -> Float[Array, "batch height-4 width-4 features"]:
        """Return the weighted sums, before `squash`."""
        maps_in, features = inputs.shape[-1], len(self.table)
        maps_seen = np.array([len(maps) for maps in self.table])
        source = np.concatenate(self.table)  # [connections]
        target = np.repeat(np.arange(features), maps_seen)  # [connections]
        fan_in = 25 * maps_seen
        weights = self.param("kernel", self.by_fan_in(fan_in[target]), (5, 5, len(source)))
        bias = self.param("bias", self.by_fan_in(fan_in), (features,))
        inputs, weights, bias = nn.dtypes.promote_dtype(inputs, weights, bias, dtype=self.dtype)
        kernel = jnp.zeros((5, 5, maps_in, features), weights.dtype)
        kernel = kernel.at[:, :, source, target].set(weights)
        sums = conv_general_dilated(
            inputs,
            kernel,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            gradient_is_stored=True,
        )
        return store_gradient(sums + bias.reshape(1, 1, 1, -1), maps_in)


class EuclideanRBF(nn.Module):
    """Minus the squared distance to each bitmap: the paper's y_i (eq. 7) with the sign changed.

    The layer has no parameters. The sum is held in float32.
    """

    @nn.compact
    def __call__(self, inputs: Float[Array, "batch 84"]) -> Float[Array, "batch 10"]:
        """Return minus the squared distance to each bitmap."""
        centers = BITMAPS.reshape(1, 10, 84)
        differences = inputs[:, None, :].astype(jnp.float32) - centers  # [batch, 10, 84]
        return -jnp.square(differences).sum(-1).astype(inputs.dtype)


class LeNet1998(nn.Module):
    """LeNet-5 of LeCun et al. 1998: 60,000 parameters, 340,908 connections.

    C1 has six maps, which S2 halves in height and width. C3 has sixteen maps, each connected to
    some of those by Table I, and S4 halves them. The 120 units of C5 are connected to all of S4.
    The 84 units of F6 form a 7x12 bitmap, and the predicted class is the nearest of ten fixed
    bitmaps. Every layer up to F6 ends in `squash`.

    Images are normalized so that white is -0.1 and black 1.175, which is (pixel - mean) / std with
    mean 0.1 / 1.275 and std 1 / 1.275 for pixels in [0, 1]. The paper's 32x32 input is the 28x28
    image of MNIST in a white frame, which the network adds.

    Choices where the paper is silent or shows only a small figure:

    - The bitmaps: figure 3 shows them as a small picture; ours are redrawn in that style, and
      their exact pixels are an assumption.
    - j in the loss: see `j`.
    - The fan-in of a unit counts its inputs without the bias: 25, 4, 25 for each map of Table I,
      4, 400 and 120. A unit of S2 and S4 has four inputs that share one coefficient.
    - Biases, and the coefficients of S2 and S4, are initialized in the same way as the weights.

    Attributes:
      num_classes: 10, the number of bitmaps.
      j: constant of the competition term. Only distances up to about j compete: a wrong class is
        pushed away while it is nearer than j, the right class is pulled in until it is. The paper
        says that j is positive but gives no value; of 1, 10 and 40, 10 trained best.
      pool: function `(inputs, window_shape) -> outputs` instead of S2 and S4, without parameters
        and without `squash`; None is the paper's subsampling.
      full_c3: connect each map of C3 to all maps of S2, instead of by Table I.
      by_fan_in: function from a fan-in to the initializer of every parameter. With the paper's,
        the signals after C5 are so small that the steps of its method are much too long; our
        recipe uses `lecun_uniform`, of the same year and authors.
      dtype: type of the computation; parameters stay float32.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, sections II.B and II.C, appendix A.
    """

    num_classes: int = 10
    j: float = 10.0
    pool: Callable[..., Array] | None = None
    full_c3: bool = False
    by_fan_in: Callable[[Any], nn.initializers.Initializer] = uniform_by_fan_in
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 28 28 1"], *, train: bool = False
    ) -> Float[Array, "batch 10"]:
        """Return minus the squared distance to each digit; `train` changes nothing here.

        Raises:
          ValueError: the images are not [batch, 28, 28, 1], or there are not 10 classes.
          TypeError: the images are not floating point.
        """
        if self.num_classes != 10:
            raise ValueError(
                f"num_classes is {self.num_classes}; expected 10 for LeNet1998, one a bitmap; "
                "use LeNet5, which allows any number"
            )
        x = self.code(images)  # [batch, 84]
        return EuclideanRBF(name="output")(x)  # [batch, 10]

    @nn.compact
    def code(self, images: Float[Array, "batch 28 28 1"]) -> Float[Array, "batch 84"]:
        """Return the outputs of F6, which the output layer compares with the bitmaps."""
        fits = images.ndim == 4 and images.shape[1:] == (28, 28, 1)
        check_images(images, fits, "LeNet1998", "[batch, 28, 28, 1]")
        conv = partial(linen_conv, kernel_size=(5, 5), padding="VALID", dtype=self.dtype)
        frame = ((0, 0), (2, 2), (2, 2), (0, 0))
        x = jnp.pad(images, frame, constant_values=BACKGROUND)  # [batch, 32, 32, 1]

        def weights(fan_in: int) -> dict[str, Any]:
            init = self.by_fan_in(fan_in)
            return {"kernel_init": init, "bias_init": init}

        def subsample(x: Array, name: str) -> Array:
            if self.pool:
                return self.pool(x, (2, 2))
            return squash(Subsampling(self.by_fan_in, self.dtype, name=name)(x))

        table = (tuple(range(6)),) * 16 if self.full_c3 else TABLE_I
        table_conv = TableConv(table, self.by_fan_in, self.dtype, name="C3")
        x = squash(conv(6, **weights(25), name="C1")(x))  # [batch, 28, 28, 6]
        x = subsample(x, "S2")  # [batch, 14, 14, 6]
        x = squash(table_conv(x))  # [batch, 10, 10, 16]
        x = subsample(x, "S4")  # [batch, 5, 5, 16]
        x = squash(conv(120, **weights(400), name="C5")(x))  # [batch, 1, 1, 120]
        x = x.reshape(x.shape[0], -1)  # [batch, 120]
        x = squash(nn.Dense(84, dtype=self.dtype, **weights(120), name="F6")(x))  # [batch, 84]
        return x

    @nn.nowrap
    def loss_fn(
        self, outputs: Float[Array, "batch 10"], labels: Int[Array, " batch"]
    ) -> Float[Array, " batch"]:
        """Return the MAP criterion, eq. 9: y_label + log(exp(-j) + sum_i exp(-y_i)), y = -outputs.

        This is cross-entropy with an eleventh logit, -j, that is never the label. The loss is
        positive, in float32.
        """
        outputs = outputs.astype(jnp.float32)
        of_label = jnp.take_along_axis(outputs, labels[:, None], axis=-1)[:, 0]  # [batch]
        return jnp.logaddexp(-self.j, jax.nn.logsumexp(outputs, axis=-1)) - of_label
