"""cuda-convnet's networks for CIFAR-10, forerunners of AlexNet."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxcnn.layers.convolution import linen_conv
from jaxcnn.layers.normalization import cuda_convnet_lrn
from jaxcnn.layers.subsampling import overlapping_avg_pool, overlapping_max_pool
from jaxcnn.models.checks import check_images


class CudaConvnet(nn.Module):
    """cuda-convnet's CIFAR-10 networks of three convolutions, 2011.

    The first convolution is pooled by maximum and then rectified; the others are rectified and then
    pooled by average. Windows are 3x3, two pixels apart; one that reaches beyond the border covers
    the pixels inside only. The names are the test errors in the source:

    - 18%: response normalization within maps follows pool1 and pool2; 89,578 parameters. Caffe's
      `cifar10_full` is this network.
    - 19%: no normalization; 89,578 parameters.
    - 26%, "in 80 seconds": no normalization, and a layer of 64 units before the output; 145,578
      parameters.

    Attributes:
      num_classes: width of the output.
      lrn: normalize within maps after pool1 and pool2, as for 18%.
      hidden: width of the layer before the output; 0 leaves it out. The source has 64 for 26%.
      activation: elementwise function after each layer; rectified units in the source.
      pool: function `(inputs, factors) -> outputs` of all three pools; None is the source's.
      initial: function from a unit's number of inputs to the initializers of its layer; None is the
        source's, normal kernels of fixed deviations, for pixels in 0..255.
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky, cuda-convnet, `layers-18pct.cfg`, `layers-19pct.cfg` and `layers-80sec.cfg`, and
      `layer-params-18pct.cfg` for the constants of normalization.
    """

    num_classes: int = 10
    lrn: bool = False
    hidden: int = 0
    activation: Callable[[Array], Array] = nn.relu
    pool: Callable[..., Array] | None = None
    initial: Callable[[int], dict[str, Any]] | None = None
    dtype: Any = jnp.float32
    head: ClassVar[str] = "fc10"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 32 32 channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` changes nothing in this network.

        Raises:
          ValueError: the images are not [batch, 32, 32, channels].
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] == (32, 32)
        check_images(images, fits, "CudaConvnet", "[batch, 32, 32, channels]")
        conv = partial(linen_conv, kernel_size=(5, 5), padding=2, dtype=self.dtype)
        dense, init = partial(nn.Dense, dtype=self.dtype), partial(_initializers, self.initial)
        f, std = self.activation, 0.1 if self.hidden else 0.01
        max_pool, avg_pool = self.pool or overlapping_max_pool, self.pool or overlapping_avg_pool

        def norm(x: Array) -> Array:
            if not self.lrn:
                return x
            return cuda_convnet_lrn(x, size=3, alpha=5e-5, beta=0.75, within_maps=True)

        x = conv(32, **init(0.0001, 25 * images.shape[-1]), name="conv1")(images)
        x = norm(f(max_pool(x, (2, 2))))  # [batch, 32, 32, 32] -> [batch, 16, 16, 32]
        x = f(conv(32, **init(0.01, 25 * 32), name="conv2")(x))
        x = norm(avg_pool(x, (2, 2)))  # [batch, 16, 16, 32] -> [batch, 8, 8, 32]
        x = f(conv(64, **init(0.01, 25 * 32), name="conv3")(x))
        x = avg_pool(x, (2, 2))  # [batch, 8, 8, 64] -> [batch, 4, 4, 64]
        x = x.reshape(x.shape[0], -1)  # [batch, 1024]
        if self.hidden:
            x = f(dense(self.hidden, **init(std, 1024), name="fc64")(x))  # [batch, hidden]
        return dense(self.num_classes, **init(std, x.shape[-1]), name="fc10")(x)


class CudaConvnetLocal(nn.Module):
    """cuda-convnet's CIFAR-10 networks with two locally connected layers, 2012.

    Two convolutions, each pooled by maximum, then two locally connected layers: convolutions with a
    separate kernel and bias at every position. Windows of pools are those of `CudaConvnet`. The
    input is a 24x24 crop of a 32x32 image. The names are the test errors in the source, of the mean
    over ten crops: the corners, the centre and their mirror images.

    - 13%: no normalization, 32 maps in local3; 1,116,490 parameters.
    - 11%, first revision: the network of 13% with response normalization over 5 channels before
      each pool, which is `cuda-convnet-13pct:lrn_size=5`.
    - 11%: 64 maps in local3, normalization over 9 channels, in the first layer after the pool;
      2,112,970 parameters.

    Attributes:
      num_classes: width of the output.
      lrn_size: number of channels that response normalization spans; 0 leaves it out.
      norm1_after_pool1: normalize the first layer after its pool instead of before.
      local3: number of maps of local3.
      activation: elementwise function after each layer; rectified units in the source.
      pool: function `(inputs, factors) -> outputs` of both pools.
      initial: as in `CudaConvnet`. With the choices `linen` and `glorot`, the kernels of locally
        connected layers are too small, because linen counts their positions as inputs.
      dropout: fraction of the units of local4 dropped in training, in [0, 1); 0 in the source.
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky, cuda-convnet, `layers-conv-local-13pct.cfg` and both revisions of
      `layers-conv-local-11pct.cfg`. The crop is that of `convdata.py` with a `crop_border` of 4.
    """

    num_classes: int = 10
    lrn_size: int = 0
    norm1_after_pool1: bool = False
    local3: int = 32
    activation: Callable[[Array], Array] = nn.relu
    pool: Callable[..., Array] = overlapping_max_pool
    initial: Callable[[int], dict[str, Any]] | None = None
    dropout: float = 0.0
    dtype: Any = jnp.float32
    head: ClassVar[str] = "fc10"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 24 24 channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` applies dropout, with the "dropout" key.

        Raises:
          ValueError: the images are not [batch, 24, 24, channels].
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] == (24, 24)
        check_images(images, fits, "CudaConvnetLocal", "[batch, 24, 24, channels]")
        conv = partial(linen_conv, kernel_size=(5, 5), padding=2, dtype=self.dtype)
        local = partial(nn.ConvLocal, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        f, pool, init = self.activation, self.pool, partial(_initializers, self.initial)

        def norm(x: Array) -> Array:
            if not self.lrn_size:
                return x
            return cuda_convnet_lrn(x, size=self.lrn_size, alpha=1e-3, beta=0.75)

        x = f(conv(64, **init(0.0001, 25 * images.shape[-1]), name="conv1")(images))
        # [batch, 24, 24, 64] -> [batch, 12, 12, 64]
        x = norm(pool(x, (2, 2))) if self.norm1_after_pool1 else pool(norm(x), (2, 2))
        x = f(conv(64, **init(0.01, 25 * 64), name="conv2")(x))
        x = pool(norm(x), (2, 2))  # [batch, 12, 12, 64] -> [batch, 6, 6, 64]
        x = f(local(self.local3, **init(0.04, 9 * 64), name="local3")(x))
        x = f(local(32, **init(0.04, 9 * self.local3), name="local4")(x))  # [batch, 6, 6, 32]
        x = x.reshape(x.shape[0], -1)  # [batch, 1152]
        if self.dropout:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        layer = init(0.01, 1152)
        return nn.Dense(self.num_classes, **layer, dtype=self.dtype, name="fc10")(x)


def _initializers(
    initial: Callable[[int], dict[str, Any]] | None, std: float, fan_in: int
) -> dict[str, Any]:
    """Return the initializers of a layer: of its fan-in, or normal with the source's deviation."""
    return initial(fan_in) if initial else {"kernel_init": nn.initializers.normal(std)}
