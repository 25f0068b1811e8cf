"""LeNet-5 and its variants."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxcnn.layers.convolution import linen_conv
from jaxcnn.layers.padding import Padding
from jaxcnn.layers.pooling import adaptive_avg_pool, avg_pool, max_pool
from jaxcnn.models import initializers
from jaxcnn.models.checks import check_images


class LeNet5(nn.Module):
    """LeNet-5 as the course notebook draws it: 61,706 parameters for 28x28 images, 10 classes.

    The layout is that of LeCun et al. 1998, figure 2, as later accounts simplified it: C3 is
    connected to all maps of S2, S2 and S4 are plain pools without coefficients, and the output is
    linear. C1 pads the image by 2, where the paper centers the digit in 32x32 pixels. The notebook
    ends in a softmax and passes it to a loss that applies softmax again; this network returns
    logits, so that the loss applies it once.

    Attributes:
      num_classes: width of the output.
      activation: elementwise function after C1, C3, C5 and F6; sigmoid in the notebook.
      pool: function `(inputs, window_shape) -> outputs` of S2 and S4; the average in the notebook.
      padding: padding of C1 and C3, as in linen's `Conv`; None is SAME in C1 and VALID in C3. With
        another padding, S4 divides its maps into 5x5 regions and averages each of them, so that all
        paddings have the same parameters.
      initial: function from a unit's number of inputs to the initializers of its layer.
      double_softmax: return the softmax of the logits, to which the loss applies softmax again, as
        in the notebook.
      dtype: type of the computation; parameters stay float32.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, section II.B.
    """

    num_classes: int = 10
    activation: Callable[[Array], Array] = nn.sigmoid
    pool: Callable[..., Array] = avg_pool
    padding: Padding | None = None
    initial: Callable[[int], dict[str, Any]] = initializers.linen_layer
    double_softmax: bool = False
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
        check_images(images, fits, "LeNet5", "[batch, 28, 28, channels]")
        conv = partial(linen_conv, kernel_size=(5, 5), dtype=self.dtype)
        c1_padding, c3_padding = (self.padding or "SAME", self.padding or "VALID")
        x = conv(6, padding=c1_padding, **self.initial(25 * images.shape[-1]), name="C1")(images)
        x = self.activation(x)  # [batch, 28, 28, 6]
        x = self.pool(x, (2, 2))  # S2: [batch, 14, 14, 6]
        x = conv(16, padding=c3_padding, **self.initial(150), name="C3")(x)
        x = self.activation(x)  # [batch, 10, 10, 16]
        # S4: [batch, 5, 5, 16]
        x = adaptive_avg_pool(x, (5, 5)) if self.padding else self.pool(x, (2, 2))
        x = conv(120, padding="VALID", **self.initial(400), name="C5")(x)
        x = self.activation(x)  # [batch, 1, 1, 120]
        x = x.reshape(x.shape[0], -1)  # [batch, 120]
        x = nn.Dense(84, dtype=self.dtype, **self.initial(120), name="F6")(x)
        x = self.activation(x)  # [batch, 84]
        x = nn.Dense(self.num_classes, dtype=self.dtype, **self.initial(84), name="output")(x)
        return nn.softmax(x) if self.double_softmax else x  # [batch, num_classes]


class LeNet5Modern(nn.Module):
    """LeNet-5's plan with later methods: 78,258 parameters for 28x28 images, 10 classes.

    Rectified units, pooling by maximum, initial kernels of variance 2 / fan-in (1 / fan-in in the
    output) and more maps in C1 and C3. C5 is smaller and F6 is left out, so that the size is close
    to LeNet-5's.

    Attributes:
      num_classes: width of the output.
      dtype: type of the computation; parameters stay float32.

    References:
      LeCun, Bottou, Bengio, Haffner 1998, section II.B, for the plan; Krizhevsky, Sutskever, Hinton
      2012, section 3.1, for rectified units; He, Zhang, Ren, Sun, "Delving Deep into Rectifiers",
      2015, section 2.2, for the kernels.
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
        check_images(images, fits, "LeNet5Modern", "[batch, 28, 28, channels]")
        conv = partial(
            linen_conv,
            kernel_size=(5, 5),
            kernel_init=nn.initializers.he_normal(),
            dtype=self.dtype,
        )
        x = conv(24, padding="SAME", name="C1")(images)  # [batch, 28, 28, 24]
        x = nn.relu(max_pool(x, (2, 2)))  # S2: [batch, 14, 14, 24]
        x = conv(32, padding="VALID", name="C3")(x)  # [batch, 10, 10, 32]
        x = nn.relu(max_pool(x, (2, 2)))  # S4: [batch, 5, 5, 32]
        x = nn.relu(conv(72, padding="VALID", name="C5")(x))  # [batch, 1, 1, 72]
        x = x.reshape(x.shape[0], -1)  # [batch, 72]
        return nn.Dense(self.num_classes, dtype=self.dtype, name="output")(x)
