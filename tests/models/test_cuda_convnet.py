import jax
import jax.numpy as jnp

from jaxcnn.models import MODELS

SIZES = {
    "alexnet": 224,
    "alexnet-32": 32,
    "alexnet-2012": 224,
    "cuda-convnet-18pct": 32,
    "cuda-convnet-11pct": 24,
}


def layer_shapes(name):
    """Shapes of what each layer gives for one image, fc8's classes apart."""
    model, size = MODELS[name](num_classes=10), SIZES[name]

    def run(key, images):
        variables = model.init(key, images)
        rngs = {"dropout": key}
        return model.apply(variables, images, train=True, rngs=rngs, capture_intermediates=True)[1]

    layers = jax.eval_shape(run, jax.random.key(0), jnp.zeros((1, size, size, 3)))["intermediates"]
    return {layer: layers[layer]["__call__"][0].shape[1:] for layer in layers if layer[0] != "_"}


def test_shapes_of_cuda_convnet():
    assert layer_shapes("cuda-convnet-18pct") == dict(
        conv1=(32, 32, 32), conv2=(16, 16, 32), conv3=(8, 8, 64), fc10=(10,)
    )
    assert layer_shapes("cuda-convnet-11pct") == dict(
        conv1=(24, 24, 64), conv2=(12, 12, 64), local3=(6, 6, 64), local4=(6, 6, 32), fc10=(10,)
    )
