"""Multilayer perceptrons for digits, and the linear classifier, as in figure 9 of 1998."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxcnn.models import initializers
from jaxcnn.models.checks import check_images
from jaxcnn.models.lenet_1998 import squash


class MLP(nn.Module):
    """Multilayer perceptron; without hidden layers, the linear classifier.

    Every unit sees all units of the layer below, so that a fixed permutation of the pixels changes
    nothing. With 28x28 images and 10 classes, the linear classifier has 7,850 parameters; one
    hidden layer of 300 makes 238,510 and one of 1000 makes 795,010; 300 and 100 units make 266,610,
    500 and 150 make 469,160. With 20x20 images, the linear classifier has 4,010 parameters and the
    network of 300 hidden units 123,310.

    The outputs are logits for cross-entropy, as those of `LeNet5`, so that the two networks differ
    in their layers alone.

    Attributes:
      num_classes: width of the output.
      hidden: width of each hidden layer, from the image to the output.
      activation: elementwise function after each hidden layer.
      initial: function from a unit's number of inputs to the initializers of its layer.
      dtype: type of the computation; parameters stay float32.

    References:
      LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition",
      1998, section III.C and figure 9, appendix A for the activation.
    """

    num_classes: int = 10
    hidden: tuple[int, ...] = ()
    activation: Callable[[Array], Array] = squash
    initial: Callable[[int], dict[str, Any]] = initializers.linen_layer
    dtype: Any = jnp.float32
    head: ClassVar[str] = "output"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` changes nothing in this network.

        Raises:
          ValueError: the images are not [batch, height, width, channels].
          TypeError: the images are not floating point.
        """
        check_images(images, images.ndim == 4, "MLP", "[batch, height, width, channels]")
        x = images.reshape(images.shape[0], -1)  # [batch, pixels]
        for number, width in enumerate(self.hidden, start=1):
            init = self.initial(x.shape[-1])
            x = nn.Dense(width, dtype=self.dtype, **init, name=f"hidden{number}")(x)
            x = self.activation(x)  # [batch, width]
        init = self.initial(x.shape[-1])
        return nn.Dense(self.num_classes, dtype=self.dtype, **init, name="output")(x)
