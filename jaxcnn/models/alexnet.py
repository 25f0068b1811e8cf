"""AlexNet of 2012, its one-tower successor of 2014, and their forerunners for CIFAR-10."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxcnn.layers.convolution import linen_conv
from jaxcnn.layers.normalization import cuda_convnet_lrn, paper_lrn
from jaxcnn.layers.pooling import adaptive_avg_pool, max_pool
from jaxcnn.models.checks import check_images

_normal = nn.initializers.normal

# The two layers with most of the parameters are split over devices: fc6 by columns and fc7 by rows,
# so that fc7 reads each device's share of fc6's outputs where it is. fc8 and the softmax stay
# whole. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014.
MODEL_AXIS = {
    "fc6/kernel": PartitionSpec(None, "model"),
    "fc6/bias": PartitionSpec("model"),
    "fc7/kernel": PartitionSpec("model", None),
}


class AlexNet(nn.Module):
    """torchvision's `alexnet`: the one tower of 2014, not the network of 2012.

    64-192-384-256-256 maps, neither groups nor response normalization, adaptive average pooling to
    6x6 and dropout before fc6 and fc7: 61,100,840 parameters with 1000 classes, 57,044,810 with 10.
    The maps are those of Krizhevsky's one-GPU network in cuda-convnet2, which has response
    normalization, dropout after fc6 and fc7, and no averaging. With 224x224 images the maps are 6x6
    already, and the averaging changes nothing.

    Initial parameters are linen's: kernels of variance 1 / fan-in, biases 0. torchvision has
    PyTorch's: kernels and biases are uniform, with a third of that variance.

    Attributes:
      num_classes: width of the output.
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014;
      cuda-convnet2's `layers-223-1gpu.cfg`; torchvision/models/alexnet.py.
    """

    num_classes: int = 1000
    dtype: Any = jnp.float32
    model_axis: ClassVar[dict[str, PartitionSpec]] = MODEL_AXIS
    head: ClassVar[str] = "fc8"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` applies dropout, with the "dropout" key.

        The shapes in the comments are those of 224x224 images.

        Raises:
          ValueError: the images are not [batch, height, width, channels], or smaller than 63x63.
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and min(images.shape[1:3]) >= 63
        check_images(images, fits, "AlexNet", "[batch, >= 63, >= 63, channels]")
        conv = partial(linen_conv, dtype=self.dtype)
        dense = partial(nn.Dense, dtype=self.dtype)
        pool = partial(max_pool, window_shape=(3, 3), strides=2)
        dropout = partial(nn.Dropout, 0.5, deterministic=not train)
        x = nn.relu(conv(64, (11, 11), strides=4, padding=2, name="conv1")(images))
        x = pool(x)  # [batch, 55, 55, 64] -> [batch, 27, 27, 64]
        x = nn.relu(conv(192, (5, 5), padding=2, name="conv2")(x))
        x = pool(x)  # [batch, 27, 27, 192] -> [batch, 13, 13, 192]
        x = nn.relu(conv(384, (3, 3), padding=1, name="conv3")(x))  # [batch, 13, 13, 384]
        x = nn.relu(conv(256, (3, 3), padding=1, name="conv4")(x))  # [batch, 13, 13, 256]
        x = nn.relu(conv(256, (3, 3), padding=1, name="conv5")(x))
        x = pool(x)  # [batch, 13, 13, 256] -> [batch, 6, 6, 256]
        x = adaptive_avg_pool(x, (6, 6))  # [batch, 6, 6, 256]
        x = x.reshape(x.shape[0], -1)  # [batch, 9216], the channels fastest; in PyTorch, slowest
        x = nn.relu(dense(4096, name="fc6")(dropout()(x)))  # [batch, 4096]
        x = nn.relu(dense(4096, name="fc7")(dropout()(x)))  # [batch, 4096]
        return dense(self.num_classes, name="fc8")(x)  # [batch, num_classes]


class AlexNet32(nn.Module):
    """AlexNet's plan for images of 32x32: 1,982,794 parameters with 10 classes.

    Five convolutions, pooled after the first, the second and the last, and three dense layers, as
    in `AlexNet`. All kernels are 3x3 at stride 1, pooling windows do not overlap, and the numbers
    of maps, 64-128-192-128-128, and of units, 512, are smaller. Kernels start with variance
    2 / fan-in, those of fc8 with 1 / fan-in. Response normalization follows the first two layers as
    in 2012, but after pooling, where it is cheaper. It is also stronger: x / sqrt(1 + the mean
    square of 9 neighbouring maps).

    Attributes:
      num_classes: width of the output.
      dropout: fraction of the units dropped before fc6 and fc7 in training, in [0, 1).
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky 2014, cited in `AlexNet`, for the plan; He, Zhang, Ren, Sun, "Delving Deep into
      Rectifiers", 2015, section 2.2, for the kernels.
    """

    num_classes: int = 10
    dropout: float = 0.0
    dtype: Any = jnp.float32
    model_axis: ClassVar[dict[str, PartitionSpec]] = MODEL_AXIS
    head: ClassVar[str] = "fc8"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch 32 32 channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` applies dropout, with the "dropout" key.

        Raises:
          ValueError: the images are not [batch, 32, 32, channels].
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] == (32, 32)
        check_images(images, fits, "AlexNet32", "[batch, 32, 32, channels]")
        he_normal = nn.initializers.he_normal()
        conv = partial(
            linen_conv, kernel_size=(3, 3), padding=1, kernel_init=he_normal, dtype=self.dtype
        )
        dense = partial(nn.Dense, kernel_init=he_normal, dtype=self.dtype)
        dropout = partial(nn.Dropout, self.dropout, deterministic=not train)
        lrn = partial(cuda_convnet_lrn, size=9, alpha=1, beta=0.5)
        x = lrn(nn.relu(max_pool(conv(64, name="conv1")(images), (2, 2))))  # [batch, 16, 16, 64]
        x = lrn(nn.relu(max_pool(conv(128, name="conv2")(x), (2, 2))))  # [batch, 8, 8, 128]
        x = nn.relu(conv(192, name="conv3")(x))  # [batch, 8, 8, 192]
        x = nn.relu(conv(128, name="conv4")(x))  # [batch, 8, 8, 128]
        x = nn.relu(max_pool(conv(128, name="conv5")(x), (2, 2)))  # [batch, 4, 4, 128]
        x = x.reshape(x.shape[0], -1)  # [batch, 2048]
        x = nn.relu(dense(512, name="fc6")(dropout()(x)))  # [batch, 512]
        x = nn.relu(dense(512, name="fc7")(dropout()(x)))  # [batch, 512]
        return nn.Dense(self.num_classes, dtype=self.dtype, name="fc8")(x)  # [batch, num_classes]


class AlexNet2012(nn.Module):
    """AlexNet as the paper of 2012 describes it: 60,965,224 parameters with 1000 classes.

    96-256-384-384-256 maps; conv2, conv4 and conv5 in two groups, one for each of the two GPUs of
    the original training; response normalization with the paper's formula after the ReLU of conv1
    and conv2; overlapping max-pooling; dropout after fc6 and fc7. Kernels start as N(0, 0.01^2).

    The paper says 224x224 pixels, stride 4 and 55x55 outputs, but those outputs need 227 pixels.
    This network pads 224x224 images with three zeros at the bottom and on the right, because
    cuda-convnet rounds the number of outputs up and reads zeros beyond the border. Images of
    227x227, Caffe's reading, are not padded.

    Departure: the paper halves the outputs of fc6 and fc7 in evaluation. Here training doubles the
    outputs that dropout keeps, as is usual today, so that the inputs of fc7 and fc8 are twice the
    paper's.

    Attributes:
      num_classes: width of the output.
      initial_bias: bias of conv2, conv4, conv5, fc6 and fc7, 1 in the paper; other biases are 0.
        In Caffe the loss was stuck with 1, so Caffe uses 0.1.
      dtype: type of the computation; parameters stay float32.

    References:
      Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural
      Networks", 2012, sections 3, 4.2 and 5; cuda-convnet's `layer.py` (`modulesX`); Caffe's
      models/bvlc_alexnet.
    """

    num_classes: int = 1000
    initial_bias: float = 1.0
    dtype: Any = jnp.float32
    model_axis: ClassVar[dict[str, PartitionSpec]] = MODEL_AXIS
    head: ClassVar[str] = "fc8"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch size size channels"], *, train: bool = False
    ) -> Float[Array, "batch num_classes"]:
        """Return the logits of each image; `train` applies dropout, with the "dropout" key.

        Raises:
          ValueError: the images are neither [batch, 224, 224, channels] nor 227x227.
          TypeError: the images are not floating point.
        """
        fits = images.ndim == 4 and images.shape[1:3] in ((224, 224), (227, 227))
        expected = "[batch, 224, 224, channels] or [batch, 227, 227, channels]"
        check_images(images, fits, "AlexNet2012", expected)
        conv = partial(linen_conv, kernel_init=_normal(0.01), dtype=self.dtype)
        dense = partial(nn.Dense, kernel_init=_normal(0.01), dtype=self.dtype)
        bias = nn.initializers.constant(self.initial_bias)
        pool = partial(max_pool, window_shape=(3, 3), strides=2)
        dropout = partial(nn.Dropout, 0.5, deterministic=not train)
        pads = ((0, 227 - images.shape[1]),) * 2
        x = nn.relu(conv(96, (11, 11), strides=4, padding=pads, name="conv1")(images))
        x = pool(paper_lrn(x))  # [batch, 55, 55, 96] -> [batch, 27, 27, 96]
        x = conv(256, (5, 5), padding=2, feature_group_count=2, bias_init=bias, name="conv2")(x)
        x = pool(paper_lrn(nn.relu(x)))  # [batch, 27, 27, 256] -> [batch, 13, 13, 256]
        x = conv(384, (3, 3), padding=1, name="conv3")(x)
        x = nn.relu(x)  # [batch, 13, 13, 384]
        x = conv(384, (3, 3), padding=1, feature_group_count=2, bias_init=bias, name="conv4")(x)
        x = nn.relu(x)  # [batch, 13, 13, 384]
        x = conv(256, (3, 3), padding=1, feature_group_count=2, bias_init=bias, name="conv5")(x)
        x = pool(nn.relu(x))  # [batch, 13, 13, 256] -> [batch, 6, 6, 256]
        x = x.reshape(x.shape[0], -1)  # [batch, 9216]
        x = dropout()(nn.relu(dense(4096, bias_init=bias, name="fc6")(x)))  # [batch, 4096]
        x = dropout()(nn.relu(dense(4096, bias_init=bias, name="fc7")(x)))  # [batch, 4096]
        return dense(self.num_classes, name="fc8")(x)  # [batch, num_classes]
