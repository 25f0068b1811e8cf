import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcnn.layers.convolution import conv_general_dilated
from jaxcnn.layers.normalization import paper_lrn
from jaxcnn.layers.pooling import avg_pool, max_pool
from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.models.variants import constructor, image_shape
from jaxcnn.summary.summarize import summarize

# Compile fast, because each program runs once.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def summary_of(name):
    return summarize(constructor(name)(), image_shape(name))


def column(name, figure):
    return {layer.name: getattr(layer, figure) for layer in summary_of(name).layers}


@pytest.mark.parametrize("name", MODELS)
def test_summarize_accounts_for_every_parameter(name):
    summary = summary_of(name)
    init = partial(MODELS[name]().init, jax.random.key(0))
    params = jax.eval_shape(init, jnp.zeros((1, *IMAGE_SHAPES[name])))["params"]
    assert summary.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    names = [layer.name for layer in summary.layers]
    assert len(set(names)) == len(names) and params.keys() <= set(names)
    assert all(layer.multiply_adds for layer in summary.layers if layer.parameters)
    assert summary.layers[-1].receptive_field == summary.input_shape[:2]


def test_summarize_counts_multiply_adds_of_alexnet():
    assert summary_of("alexnet").multiply_adds == 714_188_480
    assert {n: m for n, m in column("alexnet", "multiply_adds").items() if m} == {
        "conv1": 55 * 55 * 64 * 11 * 11 * 3,
        "conv2": 27 * 27 * 192 * 5 * 5 * 64,
        "conv3": 13 * 13 * 384 * 3 * 3 * 192,
        "conv4": 13 * 13 * 256 * 3 * 3 * 384,
        "conv5": 13 * 13 * 256 * 3 * 3 * 256,
        "fc6": 9216 * 4096,
        "fc7": 4096 * 4096,
        "fc8": 4096 * 1000,
    }


def test_summarize_counts_multiply_adds_of_groups_local_layers_and_table_i():
    assert column("alexnet-2012", "multiply_adds")["conv2"] == 27 * 27 * 256 * 5 * 5 * 48
    assert column("cuda-convnet-11pct", "multiply_adds")["local4"] == 6 * 6 * 32 * 3 * 3 * 64
    assert column("lenet5-1998", "multiply_adds") == {
        "C1": 28 * 28 * 6 * 25,
        "S2": 14 * 14 * 6,
        "C3": 10 * 10 * 1500,
        "S4": 5 * 5 * 16,
        "C5": 120 * 400,
        "F6": 84 * 120,
        "output": 10 * 84,
    }


def test_summarize_pads_to_units_of_128():
    padded = column("alexnet-2012", "padded_multiply_adds")
    assert padded["conv1"] == 55 * 55 * 11 * 11 * 128 * 128  # 3 channels and 96 features, padded
    assert (
        padded["conv2"] == 27 * 27 * 5 * 5 * 2 * 128 * 128
    )  # two groups of 48 channels and 128 features, padded
    assert padded["conv3"] == column("alexnet-2012", "multiply_adds")["conv3"]
    assert padded["fc8"] == 4096 * 1024
    assert padded["pool1"] == 0
    assert column("lenet5-1998", "padded_multiply_adds")["C3"] == 10 * 10 * 5 * 5 * 128 * 128
    assert column("cuda-convnet-11pct", "padded_multiply_adds")["local3"] == 36 * 640 * 128


def test_summarize_counts_connections_of_1998():
    assert summary_of("lenet5-1998").connections == 340_908
    assert column("lenet5-1998", "connections") == {
        **{"C1": 122_304, "S2": 5_880, "C3": 151_600, "S4": 2_000, "C5": 48_120},
        **{"F6": 10_164, "output": 840},
    }


def test_summarize_finds_receptive_fields_of_1998():
    assert column("lenet5-1998", "receptive_field") == {
        **{"C1": (5, 5), "S2": (6, 6), "C3": (14, 14), "S4": (16, 16)},
        **{"C5": (32, 32), "F6": (32, 32), "output": (32, 32)},
    }


def test_summarize_describes_operations_in_words():
    assert column("alexnet-2012", "operation") == {
        "conv1": "conv 11x11, stride 4, relu",
        "norm1": "norm, 5 maps",
        "pool1": "max pool 3x3, stride 2",
        "conv2": "conv 5x5, 2 groups, relu",
        "norm2": "norm, 5 maps",
        "pool2": "max pool 3x3, stride 2",
        "conv3": "conv 3x3, relu",
        "conv4": "conv 3x3, 2 groups, relu",
        "conv5": "conv 3x3, 2 groups, relu",
        "pool5": "max pool 3x3, stride 2",
        **{"fc6": "full, relu", "fc7": "full, relu", "fc8": "full"},
    }
    assert column("cuda-convnet-18pct", "operation")["norm1"] == "norm 3x3"
    assert column("cuda-convnet-11pct", "operation")["local3"] == "local 3x3, relu"


@pytest.mark.parametrize(
    ("name", "activation", "pool"),
    [
        ("lenet5", "sigmoid", "average pool 2x2"),
        ("lenet5-relu", "relu", "max pool 2x2"),
        ("lenet5-tanh:pool=min", "tanh", "min pool 2x2"),
        ("lenet5-1998", "tanh", "Subsampling 2x2, tanh"),
    ],
)
def test_summarize_tells_pools_and_activations_apart(name, activation, pool):
    assert column(name, "operation") == {
        "C1": f"conv 5x5, {activation}",
        "S2": pool,
        "C3": f"conv 5x5, {activation}",
        "S4": pool,
        "C5": f"conv 5x5, {activation}",
        "F6": f"full, {activation}",
        "output": "EuclideanRBF" if name == "lenet5-1998" else "full",
    }
    assert column("lenet5-modern", "operation")["S2"] == "max pool 2x2, relu"
    operations = column("cuda-convnet-18pct", "operation")
    assert operations["pool1"] == "max pool 3x3, stride 2, relu"
    assert operations["pool2"] == "average pool 3x3, stride 2"


class Stages(nn.Module):
    """A network whose layers are called as by `names`, each followed by a pool."""

    names: tuple[str, ...]

    @nn.compact
    def __call__(self, images, *, train=False):
        x = images
        for name in self.names:
            x = max_pool(nn.Conv(4, (3, 3), name=name)(x), (2, 2))
        return nn.Dense(3, name="fc")(x.reshape(1, -1))


@pytest.mark.parametrize(
    ("names", "pools"),
    [
        (("conv1_2", "conv2_2"), ("pool1", "pool2")),
        (("conv1_1", "conv1_2"), ("pool1", "pool1_2")),
        (("stem", "body"), ("pool_stem", "pool_body")),
        (("Conv_0", "Conv_1"), ("pool0", "pool1")),
        (("block1a", "block1b"), ("pool1a", "pool1b")),
        (("C1", "C3"), ("S2", "S4")),
    ],
)
def test_summarize_names_each_pool_after_the_layer_before(names, pools):
    layers = summarize(Stages(names), (8, 8, 1)).layers
    assert tuple(layer.name for layer in layers) == (names[0], pools[0], names[1], pools[1], "fc")


class Small(nn.Module):
    """A small AlexNet that sows the outputs of its pools."""

    @nn.compact
    def __call__(self, images, *, train=False):
        conv = partial(nn.Conv, conv_general_dilated=conv_general_dilated)
        # Many maps, because a maximum has a gradient for only one of its inputs in each map.
        x = nn.relu(conv(64, (7, 5), strides=3, padding=((0, 2), (1, 1)), name="conv1")(images))
        x = self.sow_output("pool1", max_pool(paper_lrn(x), (3, 3), strides=2, ceil_mode=True))
        x = conv(8, (3, 3), padding=1, feature_group_count=2, name="conv2")(x)
        x = self.sow_output("pool2", avg_pool(nn.gelu(x), (2, 2), padding=((0, 1), (0, 0))))
        return nn.Dense(5, name="fc3")(x.reshape(x.shape[0], -1))

    def sow_output(self, name, x):
        self.sow("intermediates", name, x)
        return x


def extents_of_gradients(model, shape):
    """Return height and width of the pixels that the central unit of each layer depends on."""
    image = jnp.asarray(np.random.default_rng(0).uniform(size=(1, *shape)), jnp.float32)
    variables = jit(model.init)(jax.random.key(1), image)
    variables = {"params": variables["params"]}

    def central_units(image):
        _, state = model.apply(
            variables, image, capture_intermediates=True, mutable="intermediates"
        )
        outputs = {
            name: found["__call__"][0] if isinstance(found, dict) else found[0]
            for name, found in state["intermediates"].items()
            if name != "__call__"
        }
        return {
            name: output[(0, *(n // 2 for n in output.shape[1:-1]))].sum()
            for name, output in outputs.items()
        }

    extents = {}
    for name, gradient in jit(jax.jacrev(central_units))(image).items():
        nonzero = np.asarray(gradient)[0].any(-1)
        indices = [np.flatnonzero(nonzero.any(axis)) for axis in (1, 0)]
        extents[name] = tuple(int(found[-1] - found[0]) + 1 for found in indices)
    return extents


@pytest.mark.parametrize(
    ("model", "shape", "names"),
    [
        (MODELS["lenet5-tanh"](), (28, 28, 1), ["C1", "C3", "C5", "F6", "output"]),
        (Small(), (40, 44, 2), ["conv1", "pool1", "conv2", "pool2", "fc3"]),
    ],
    ids=["lenet5", "small-alexnet"],
)
def test_summarize_finds_the_receptive_fields_of_the_gradient(model, shape, names):
    fields = {layer.name: layer.receptive_field for layer in summarize(model, shape).layers}
    assert extents_of_gradients(model, shape) == {name: fields[name] for name in names}


def test_summarize_takes_another_number_of_classes():
    summary = summarize(MODELS["alexnet"](num_classes=10), IMAGE_SHAPES["alexnet"])
    assert summary.parameters == 57_044_810 and summary.layers[-1].output_shape == (10,)


def test_summarize_reads_pools_by_means_and_batch_normalization():
    class Modern(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.Conv(4, (3, 3), name="conv1")(images)
            x = nn.silu(nn.BatchNorm(use_running_average=not train, name="bn1")(x))
            return nn.Dense(3, name="fc2")(x.mean((1, 2)))

    layers = {layer.name: layer for layer in summarize(Modern(), (8, 6, 1)).layers}
    assert {name: layer.operation for name, layer in layers.items()} == {
        **{"conv1": "conv 3x3", "bn1": "BatchNorm, silu"},
        **{"pool1": "average pool 8x6", "fc2": "full"},
    }
    assert [layer.parameters for layer in layers.values()] == [40, 8, 0, 15]
    assert layers["pool1"].receptive_field == (8, 6) and layers["pool1"].output_shape == (4,)


def test_summarize_names_a_layer_after_its_scope():
    class Scoped(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.Conv(4, (3, 3), name="conv1")(images)
            with jax.named_scope("halved"):
                x = max_pool(x, (2, 2))
            return nn.Dense(3, name="fc2")(x.reshape(1, -1))

    layers = summarize(Scoped(), (8, 8, 1)).layers
    assert [(layer.name, layer.operation) for layer in layers[:2]] == [
        ("conv1", "conv 3x3"),
        ("halved", "max pool 2x2"),
    ]


def test_summarize_refuses_a_network_that_is_not_a_chain():
    class Residual(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            x = nn.Conv(4, (3, 3), name="conv1")(images)
            y = nn.Conv(4, (3, 3), name="conv2")(x)
            return x + nn.Conv(4, (3, 3), name="conv3")(y)

    with pytest.raises(NotImplementedError, match="needs a chain of modules"):
        summarize(Residual(), (4, 4, 1))


def test_summarize_refuses_an_unknown_operation():
    class Sorted(nn.Module):
        @nn.compact
        def __call__(self, images, *, train=False):
            return nn.Dense(3, name="fc1")(jnp.sort(images, axis=1).reshape(1, -1))

    with pytest.raises(NotImplementedError, match="`sort`"):
        summarize(Sorted(), (4, 4, 1))
