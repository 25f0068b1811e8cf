"""The networks: MODELS maps a name to a constructor with arguments `num_classes` and `dtype`.

`variants` reads names with further fields, such as `lenet5-tanh:pool=max`.
"""

from collections.abc import Callable
from functools import partial

from flax import linen as nn

from jaxcnn.layers.pooling import max_pool
from jaxcnn.models.alexnet import AlexNet, AlexNet32, AlexNet2012
from jaxcnn.models.cuda_convnet import CudaConvnet, CudaConvnetLocal
from jaxcnn.models.initializers import lecun_uniform
from jaxcnn.models.lenet import LeNet5, LeNet5Modern
from jaxcnn.models.lenet_1998 import LeNet1998
from jaxcnn.models.lenet_early import LeNet1, LeNet4
from jaxcnn.models.mlp import MLP

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": MLP,
    "mlp-300": partial(MLP, hidden=(300,)),
    "mlp-1000": partial(MLP, hidden=(1000,)),
    "mlp-300-100": partial(MLP, hidden=(300, 100)),
    "mlp-500-150": partial(MLP, hidden=(500, 150)),
    "lenet1": LeNet1,
    "lenet4": LeNet4,
    "lenet5": LeNet5,
    "lenet5-tanh": partial(LeNet5, activation=nn.tanh),
    "lenet5-relu": partial(LeNet5, activation=nn.relu, pool=max_pool),
    "lenet5-modern": LeNet5Modern,
    "lenet5-1998": LeNet1998,
    "lenet5-1998-lecun-uniform": partial(LeNet1998, by_fan_in=lecun_uniform),
    "alexnet": AlexNet,
    "alexnet-32": AlexNet32,
    "alexnet-2012": AlexNet2012,
    "cuda-convnet-26pct": partial(CudaConvnet, hidden=64),
    "cuda-convnet-19pct": CudaConvnet,
    "cuda-convnet-18pct": partial(CudaConvnet, lrn=True),
    "cuda-convnet-13pct": CudaConvnetLocal,
    "cuda-convnet-11pct": partial(CudaConvnetLocal, lrn_size=9, norm1_after_pool1=True, local3=64),
}

# Height, width and channels of the images that each entry of MODELS was designed for.
IMAGE_SHAPES = {
    "linear": (28, 28, 1),
    "mlp-300": (28, 28, 1),
    "mlp-1000": (28, 28, 1),
    "mlp-300-100": (28, 28, 1),
    "mlp-500-150": (28, 28, 1),
    "lenet1": (28, 28, 1),
    "lenet4": (28, 28, 1),
    "lenet5": (28, 28, 1),
    "lenet5-tanh": (28, 28, 1),
    "lenet5-relu": (28, 28, 1),
    "lenet5-modern": (28, 28, 1),
    "lenet5-1998": (28, 28, 1),
    "lenet5-1998-lecun-uniform": (28, 28, 1),
    "alexnet": (224, 224, 3),
    "alexnet-32": (32, 32, 3),
    "alexnet-2012": (224, 224, 3),
    "cuda-convnet-26pct": (32, 32, 3),
    "cuda-convnet-19pct": (32, 32, 3),
    "cuda-convnet-18pct": (32, 32, 3),
    "cuda-convnet-13pct": (24, 24, 3),
    "cuda-convnet-11pct": (24, 24, 3),
}
