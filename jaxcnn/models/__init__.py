"""The networks: MODELS, a plain dict of name -> constructor taking `num_classes` and `dtype`."""

from collections.abc import Callable
from functools import partial

from flax import linen as nn

from jaxcnn.layers.pooling import max_pool, min_pool
from jaxcnn.models.alexnet import (
    AlexNet,
    AlexNet32,
    AlexNet2012,
    CudaConvnet11pct,
    CudaConvnet18pct,
)
from jaxcnn.models.lenet import LeNet5, LeNet5Modern
from jaxcnn.models.lenet_1998 import LeNet1998, lecun_uniform

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lenet5": LeNet5,
    "lenet5-tanh": partial(LeNet5, activation=nn.tanh),
    "lenet5-relu": partial(LeNet5, activation=nn.relu, pool=max_pool),
    "lenet5-min-pool": partial(LeNet5, activation=nn.tanh, pool=min_pool),
    "lenet5-modern": LeNet5Modern,
    "lenet5-1998": LeNet1998,
    "lenet5-1998-lecun-uniform": partial(LeNet1998, by_fan_in=lecun_uniform),
    "alexnet": AlexNet,
    "alexnet-32": AlexNet32,
    "alexnet-2012": AlexNet2012,
    "cuda-convnet-18pct": CudaConvnet18pct,
    "cuda-convnet-11pct": CudaConvnet11pct,
}
