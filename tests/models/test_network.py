"""Every network: parameters of each layer, precision, and logits by plain operations."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.linen import pooling as linen_pooling
from helpers import assert_close, random_params

from jaxcnn.benchmarks import torch_job, torch_networks
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.models.variants import constructor
from jaxcnn.training.step import cross_entropy

LENET5 = {"C1": 156, "C3": 2_416, "C5": 48_120, "F6": 10_164, "output": 850}

# C3: 32 * (5 * 5 * 24 + 1).
LENET5_MODERN = {"C1": 624, "C3": 19_232, "C5": 57_672, "output": 730}

# mlp-300-100 in figure 9 of LeCun et al. 1998: 28 * 28 * 300 + 300.
LINEAR = {"output": 7_850}
MLP_300 = {"hidden1": 235_500, "output": 3_010}
MLP_1000 = {"hidden1": 785_000, "output": 10_010}
MLP_300_100 = {"hidden1": 235_500, "hidden2": 30_100, "output": 1_010}
MLP_500_150 = {"hidden1": 392_500, "hidden2": 75_150, "output": 1_510}

# LeCun et al. 1990: H3 has 20 kernels.
LENET1 = {"H1": 104, "H2": 8, "H3": 512, "H4": 24, "output": 1_930}

# LeCun et al. 1998, section III.C, with 48 kernels in C3.
LENET4 = {"C1": 104, "S2": 16, "C3": 1_216, "S4": 32, "C5": 48_120, "output": 1_210}

# LeCun et al. 1998, section II.B; the bitmaps behind F6 are fixed.
LENET_1998 = {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}

# Krizhevsky et al. 2012, from the paper's figure 2; a unit of conv2, conv4 and conv5 is
# connected to half of the maps below it. conv2: 256 * (5 * 5 * 48 + 1).
ALEXNET_2012 = {
    **{"conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624},
    **{"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000},
}

# torchvision's state_dict.
ALEXNET = {
    **{"conv1": 23_296, "conv2": 307_392, "conv3": 663_936, "conv4": 884_992, "conv5": 590_080},
    **{"fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000},
}

# conv3: 192 * (3 * 3 * 128 + 1); fc6: 512 * (4 * 4 * 128 + 1).
ALEXNET_32 = {
    **{"conv1": 1_792, "conv2": 73_856, "conv3": 221_376, "conv4": 221_312, "conv5": 147_584},
    **{"fc6": 1_049_088, "fc7": 262_656, "fc8": 5_130},
}

# From cuda-convnet's layer definitions. local3 of 11pct: 6 * 6 * 64 * (3 * 3 * 64 + 1).
CUDA_CONVNET_18PCT = {"conv1": 2_432, "conv2": 25_632, "conv3": 51_264, "fc10": 10_250}
CUDA_CONVNET_26PCT = {**CUDA_CONVNET_18PCT, "fc64": 65_600, "fc10": 650}
CUDA_CONVNET_13PCT = {
    **{"conv1": 4_864, "conv2": 102_464, "local3": 664_704, "local4": 332_928, "fc10": 11_530},
}
CUDA_CONVNET_11PCT = {
    **{"conv1": 4_864, "conv2": 102_464, "local3": 1_329_408, "local4": 664_704, "fc10": 11_530},
}

# Parameters of each layer, for one image of IMAGE_SHAPES and the classes of the source.
NUM_PARAMETERS = {
    "linear": LINEAR,
    "mlp-300": MLP_300,
    "mlp-1000": MLP_1000,
    "mlp-300-100": MLP_300_100,
    "mlp-500-150": MLP_500_150,
    "lenet1": LENET1,
    "lenet4": LENET4,
    "lenet5": LENET5,
    "lenet5-tanh": LENET5,
    "lenet5-relu": LENET5,
    "lenet5-modern": LENET5_MODERN,
    "lenet5-1998": LENET_1998,
    "lenet5-1998-lecun-uniform": LENET_1998,
    "alexnet": ALEXNET,
    "alexnet-32": ALEXNET_32,
    "alexnet-2012": ALEXNET_2012,
    "cuda-convnet-26pct": CUDA_CONVNET_26PCT,
    "cuda-convnet-19pct": CUDA_CONVNET_18PCT,
    "cuda-convnet-18pct": CUDA_CONVNET_18PCT,
    "cuda-convnet-13pct": CUDA_CONVNET_13PCT,
    "cuda-convnet-11pct": CUDA_CONVNET_11PCT,
}

# Activation and pooling of each name, with linen's pooling.
LENET5_VARIANTS = {
    "lenet5": (nn.sigmoid, linen_pooling.avg_pool),
    "lenet5-tanh": (nn.tanh, linen_pooling.avg_pool),
    "lenet5-relu": (nn.relu, linen_pooling.max_pool),
}


def init_shapes(name, **fields):
    init = MODELS[name](**fields).init
    return jax.eval_shape(init, jax.random.key(0), images(1, name))["params"]


def images(num_images, name="lenet5"):
    values = np.random.default_rng(0).uniform(-1, 1, (num_images, *IMAGE_SHAPES[name]))
    return jnp.asarray(values, jnp.float32)


def params_of(name):
    return random_params(MODELS[name](), IMAGE_SHAPES[name])


def test_models_all_have_a_row():
    assert NUM_PARAMETERS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", NUM_PARAMETERS)
def test_models_have_the_parameters_of_the_source(name):
    shapes = init_shapes(name)
    counts = {layer: sum(leaf.size for leaf in jax.tree.leaves(shapes[layer])) for layer in shapes}
    assert counts == NUM_PARAMETERS[name]


def test_models_have_as_many_parameters_in_all():
    assert sum(LINEAR.values()) == 7_850
    assert sum(MLP_300.values()) == 238_510
    assert sum(MLP_1000.values()) == 795_010
    assert sum(MLP_300_100.values()) == 266_610
    assert sum(MLP_500_150.values()) == 469_160
    assert sum(LENET1.values()) == 2_578
    assert sum(LENET4.values()) == 50_698
    assert sum(LENET5.values()) == 61_706
    assert sum(LENET5_MODERN.values()) == 78_258
    assert sum(LENET_1998.values()) == 60_000
    assert sum(ALEXNET.values()) == 61_100_840
    assert sum(ALEXNET_2012.values()) == 60_965_224
    assert sum(CUDA_CONVNET_26PCT.values()) == 145_578
    assert sum(CUDA_CONVNET_18PCT.values()) == 89_578
    assert sum(CUDA_CONVNET_13PCT.values()) == 1_116_490
    assert sum(CUDA_CONVNET_11PCT.values()) == 2_112_970
    alexnet_for_ten_classes = jax.tree.leaves(init_shapes("alexnet", num_classes=10))
    assert sum(leaf.size for leaf in alexnet_for_ten_classes) == 57_044_810


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_models_keep_float32_parameters_in_any_precision(name, dtype):
    num_classes = 10 if "1998" in name else 7  # ten bitmaps
    model = MODELS[name](num_classes=num_classes, dtype=dtype)
    logits, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), images(3, name))
    chex.assert_shape(logits, (3, num_classes))
    assert logits.dtype == dtype
    chex.assert_type(jax.tree.leaves(variables), jnp.float32)


@pytest.mark.parametrize("name", LENET5_VARIANTS)
def test_lenet5_variants_by_hand(name):
    activation, pool = LENET5_VARIANTS[name]

    @jax.jit
    def reference(params, x):
        def conv(name, features, padding, x):
            layer = nn.Conv(features, (5, 5), padding=padding)
            return activation(layer.apply({"params": params[name]}, x))

        x = pool(conv("C1", 6, 2, x), (2, 2), (2, 2))
        x = pool(conv("C3", 16, 0, x), (2, 2), (2, 2))
        x = conv("C5", 120, 0, x)[:, 0, 0]
        x = activation(nn.Dense(84).apply({"params": params["F6"]}, x))
        return nn.Dense(10).apply({"params": params["output"]}, x)

    params = params_of(name)
    logits = jax.jit(MODELS[name]().apply)({"params": params}, images(3))
    assert_close(logits, reference(params, images(3)))


def test_lenet5_modern_by_hand():
    @jax.jit
    def reference(params, x):
        def conv(name, features, padding, x):
            return nn.Conv(features, (5, 5), padding=padding).apply({"params": params[name]}, x)

        def pool(x):
            return linen_pooling.max_pool(x, (2, 2), (2, 2))

        x = pool(nn.relu(conv("C1", 24, 2, x)))
        x = pool(nn.relu(conv("C3", 32, 0, x)))
        x = nn.relu(conv("C5", 72, 0, x))[:, 0, 0]
        return nn.Dense(10).apply({"params": params["output"]}, x)

    params = params_of("lenet5-modern")
    logits = jax.jit(MODELS["lenet5-modern"]().apply)({"params": params}, images(3))
    assert_close(logits, reference(params, images(3)))


def test_alexnet_32_by_hand():
    @jax.jit
    def reference(params, x):
        def conv(name, features, x):
            layer = nn.Conv(features, (3, 3), padding=1)
            return nn.relu(layer.apply({"params": params[name]}, x))

        def dense(name, features, x):
            return nn.Dense(features).apply({"params": params[name]}, x)

        def pool(x):
            return linen_pooling.max_pool(x, (2, 2), (2, 2))

        def normalize(x):  # by the mean square of 9 neighbouring maps, those beyond the ends 0
            squares = jnp.pad(x**2, [(0, 0)] * 3 + [(4, 4)])
            windows = [squares[..., i : i + x.shape[-1]] for i in range(9)]
            return x / jnp.sqrt(1 + sum(windows) / 9)

        x = normalize(pool(conv("conv2", 128, normalize(pool(conv("conv1", 64, x))))))
        x = pool(conv("conv5", 128, conv("conv4", 128, conv("conv3", 192, x))))
        x = nn.relu(dense("fc6", 512, x.reshape(len(x), -1)))
        return dense("fc8", 10, nn.relu(dense("fc7", 512, x)))

    params, x = params_of("alexnet-32"), images(3, "alexnet-32")
    apply = jax.jit(functools.partial(MODELS["alexnet-32"]().apply, train=True))  # no dropout
    assert_close(apply({"params": params}, x), reference(params, x))


@pytest.mark.parametrize(
    "name", ["lenet5-modern", pytest.param("alexnet-32", marks=pytest.mark.slow)]
)
def test_models_with_relu_start_with_variance_2_over_fan_in(name):
    params = jax.jit(MODELS[name]().init)(jax.random.key(0), images(1, name))["params"]
    output = max(params)  # linen's own initial values
    for layer in params.keys() - {output}:
        kernel = params[layer]["kernel"]
        assert kernel.std() == pytest.approx((2 / kernel[..., 0].size) ** 0.5, rel=0.1)
        assert not params[layer]["bias"].any()


@pytest.mark.parametrize("name", torch_job.MODELS)  # the first is the notebook's, without softmax
def test_lenet5_equals_that_in_pytorch(name):
    torch = pytest.importorskip("torch")
    theirs = torch_networks.NETWORKS[name][0](torch)
    layers = dict(zip(LENET5, (m for m in theirs if hasattr(m, "weight")), strict=True))
    params, x, labels = params_of("lenet5"), images(8), np.arange(8)

    def to_torch(kernel):  # [height, width, in, out] or [in, out], to out and in first
        return torch.tensor(np.moveaxis(kernel, (-1, -2), (0, 1)))

    def from_torch(weight):
        return np.moveaxis(weight.numpy(), (0, 1), (-1, -2))

    for layer_name, layer in layers.items():
        layer.weight.data = to_torch(params[layer_name]["kernel"])
        layer.bias.data = torch.tensor(np.asarray(params[layer_name]["bias"]))
    expected_logits = theirs(torch.tensor(np.moveaxis(x, -1, 1)))
    torch.nn.functional.cross_entropy(expected_logits, torch.tensor(labels)).backward()
    expected_grads = {
        layer_name: {"kernel": from_torch(layer.weight.grad), "bias": layer.bias.grad.numpy()}
        for layer_name, layer in layers.items()
    }

    @jax.jit
    def logits_and_grads(params):
        def mean_loss(params):
            logits = constructor(name)().apply({"params": params}, x)
            return cross_entropy(logits, labels).mean(), logits

        grads, logits = jax.grad(mean_loss, has_aux=True)(params)
        return logits, grads

    logits, grads = logits_and_grads(params)
    assert_close(logits, expected_logits.detach().numpy())
    assert_close(grads, expected_grads)


@pytest.mark.parametrize("shape", [(28, 28, 1), (1, 32, 32, 1), (1, 784)])
@pytest.mark.parametrize("name", [*LENET5_VARIANTS, "lenet5-modern"])
def test_lenet5_refuses_other_shapes(name, shape):
    with pytest.raises(
        ValueError, match=r"have shape .*; expected \[batch, 28, 28, channels\] for LeNet5"
    ):
        MODELS[name]().init(jax.random.key(0), jnp.zeros(shape))


@pytest.mark.parametrize("name", [*LENET5_VARIANTS, "lenet5-modern"])
def test_lenet5_refuses_raw_pixels(name):
    with pytest.raises(TypeError, match="images are uint8; expected floating point"):
        MODELS[name]().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1), jnp.uint8))
