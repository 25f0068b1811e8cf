"""cuda-convnet's networks for CIFAR-10, forerunners of AlexNet."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.normalization import cuda_convnet_lrn
from jaxcnn.layers.pooling import avg_pool, max_pool
from jaxcnn.models.checks import check_images

_conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)
_normal = nn.initializers.normal


class CudaConvnet18pct(nn.Module):
    """cuda-convnet's CIFAR-10 network of 18% test error, 2011: 89,578 parameters.

    Three convolutions. The first is pooled by maximum and then rectified; the others are rectified
    and then pooled by average. Response normalization within maps follows pool1 and pool2. A
    pooling window that reaches beyond the border covers the pixels inside only. Caffe's
    `cifar10_full` is this network.

    Attributes:
      num_classes: width of the output.
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky, cuda-convnet, `layers-18pct.cfg`, and `layer-params-18pct.cfg` for the constants
      of normalization.
    """

    num_classes: int = 10
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
        check_images(images, fits, "CudaConvnet18pct", "[batch, 32, 32, channels]")
        conv = partial(_conv, kernel_size=(5, 5), padding=2, dtype=self.dtype)
        dense = partial(nn.Dense, kernel_init=_normal(0.01), dtype=self.dtype)
        windows: dict[str, Any] = {"window_shape": (3, 3), "strides": 2, "ceil_mode": True}
        lrn = partial(cuda_convnet_lrn, size=3, alpha=5e-5, beta=0.75, within_maps=True)
        x = conv(32, kernel_init=_normal(0.0001), name="conv1")(images)
        x = lrn(nn.relu(max_pool(x, **windows)))  # [batch, 32, 32, 32] -> [batch, 16, 16, 32]
        x = nn.relu(conv(32, kernel_init=_normal(0.01), name="conv2")(x))
        x = lrn(avg_pool(x, **windows))  # [batch, 16, 16, 32] -> [batch, 8, 8, 32]
        x = nn.relu(conv(64, kernel_init=_normal(0.01), name="conv3")(x))
        x = avg_pool(x, **windows)  # [batch, 8, 8, 64] -> [batch, 4, 4, 64]
        x = x.reshape(x.shape[0], -1)  # [batch, 1024]
        return dense(self.num_classes, name="fc10")(x)  # [batch, num_classes]


class CudaConvnet11pct(nn.Module):
    """cuda-convnet's CIFAR-10 network of 11% test error, 2012: 2,112,970 parameters.

    Two convolutions with response normalization across channels, after pooling in the first and
    before it in the second, then two locally connected layers: convolutions with a separate kernel
    and bias at every position. The input is a 24x24 crop of a 32x32 image. The 11% is the error of
    the mean over ten crops: the corners, the centre and their mirror images.

    Attributes:
      num_classes: width of the output.
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky, cuda-convnet, `layers-conv-local-11pct.cfg` in its revision of 64 maps in local3
      and normalization over 9 channels; an earlier revision has 32 and 5. The crop is that of
      `convdata.py` with a `crop_border` of 4.
    """

    num_classes: int = 10
    dtype: Any = jnp.float32
    head: ClassVar[str] = "fc10"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 24 24 channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` changes nothing in this network.

        Raises:
          ValueError: the images are not [batch, 24, 24, channels].
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] == (24, 24)
        check_images(images, fits, "CudaConvnet11pct", "[batch, 24, 24, channels]")
        conv = partial(_conv, kernel_size=(5, 5), padding=2, dtype=self.dtype)
        local = partial(nn.ConvLocal, kernel_size=(3, 3), padding=1, dtype=self.dtype)
        dense = partial(nn.Dense, kernel_init=_normal(0.01), dtype=self.dtype)
        pool = partial(max_pool, window_shape=(3, 3), strides=2, ceil_mode=True)
        lrn = partial(cuda_convnet_lrn, size=9, alpha=1e-3, beta=0.75)
        x = nn.relu(conv(64, kernel_init=_normal(0.0001), name="conv1")(images))
        x = lrn(pool(x))  # [batch, 24, 24, 64] -> [batch, 12, 12, 64]
        x = nn.relu(conv(64, kernel_init=_normal(0.01), name="conv2")(x))
        x = pool(lrn(x))  # [batch, 12, 12, 64] -> [batch, 6, 6, 64]
        x = nn.relu(local(64, kernel_init=_normal(0.04), name="local3")(x))  # [batch, 6, 6, 64]
        x = nn.relu(local(32, kernel_init=_normal(0.04), name="local4")(x))  # [batch, 6, 6, 32]
        x = x.reshape(x.shape[0], -1)  # [batch, 1152]
        return dense(self.num_classes, name="fc10")(x)  # [batch, num_classes]
