"""cuda-convnet's networks; `test_alexnet.py` compares their logits with PyTorch's."""

from helpers import layer_shapes


def test_cuda_convnet_has_the_shapes_of_the_source():
    assert layer_shapes("cuda-convnet-18pct") == dict(
        conv1=(32, 32, 32), conv2=(16, 16, 32), conv3=(8, 8, 64), fc10=(10,)
    )
    assert layer_shapes("cuda-convnet-11pct") == dict(
        conv1=(24, 24, 64), conv2=(12, 12, 64), local3=(6, 6, 64), local4=(6, 6, 32), fc10=(10,)
    )
