"""The networks: MODELS maps a name to a constructor with arguments `num_classes` and `dtype`."""

from collections.abc import Callable
from functools import partial

from flax import linen as nn

from jaxcnn.layers.pooling import max_pool, min_pool
from jaxcnn.layers.subsampling import max_blur_pool, overlapping_max_pool, subsample
from jaxcnn.models.alexnet import AlexNet, AlexNet32, AlexNet2012
from jaxcnn.models.cuda_convnet import CudaConvnet11pct, CudaConvnet18pct
from jaxcnn.models.lenet import LeNet5, LeNet5Modern
from jaxcnn.models.lenet_1998 import LeNet1998, lecun_uniform

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5-tanh": partial(LeNet5, activation=nn.tanh),
    "lenet5-relu": partial(LeNet5, activation=nn.relu, pool=max_pool),
    "lenet5-max-pool": partial(LeNet5, activation=nn.tanh, pool=max_pool),
    "lenet5-min-pool": partial(LeNet5, activation=nn.tanh, pool=min_pool),
    "lenet5-overlapping-pool": partial(LeNet5, activation=nn.tanh, pool=overlapping_max_pool),
    "lenet5-blur-pool": partial(LeNet5, activation=nn.tanh, pool=max_blur_pool),
    "lenet5-no-pool": partial(LeNet5, activation=nn.tanh, pool=subsample),
    "lenet5-modern": LeNet5Modern,
    "lenet5-1998": LeNet1998,
    "lenet5-1998-lecun-uniform": partial(LeNet1998, by_fan_in=lecun_uniform),
    "alexnet": AlexNet,
    "alexnet-32": AlexNet32,
    "alexnet-2012": AlexNet2012,
    "cuda-convnet-18pct": CudaConvnet18pct,
    "cuda-convnet-11pct": CudaConvnet11pct,
}

# Height, width and channels of the images that each entry of MODELS was designed for.
IMAGE_SHAPES = {
    "lenet5": (28, 28, 1),
    "lenet5-tanh": (28, 28, 1),
    "lenet5-relu": (28, 28, 1),
    "lenet5-max-pool": (28, 28, 1),
    "lenet5-min-pool": (28, 28, 1),
    "lenet5-overlapping-pool": (28, 28, 1),
    "lenet5-blur-pool": (28, 28, 1),
    "lenet5-no-pool": (28, 28, 1),
    "lenet5-modern": (28, 28, 1),
    "lenet5-1998": (28, 28, 1),
    "lenet5-1998-lecun-uniform": (28, 28, 1),
    "alexnet": (224, 224, 3),
    "alexnet-32": (32, 32, 3),
    "alexnet-2012": (224, 224, 3),
    "cuda-convnet-18pct": (32, 32, 3),
    "cuda-convnet-11pct": (24, 24, 3),
}
