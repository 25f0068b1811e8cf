"""ONNX models: onnxruntime gives the answers of JAX, for every network and every option."""

import json

import numpy as np
import pytest
from helpers import Tiny, assert_close, photographs, random_network

from jaxcnn.data.transforms import CenterCrop, Deslant, HorizontalFlip, RandomCrop, Resize
from jaxcnn.errors import UserError
from jaxcnn.evaluation.predict import Classifier
from jaxcnn.interop.onnx import to_onnx
from jaxcnn.interop.trained import make_card
from jaxcnn.models import MODELS

NO_ONNX = "ONNX models need onnx to be written, and onnxruntime to be run"
onnx = pytest.importorskip("onnx", reason=NO_ONNX)
onnxruntime = pytest.importorskip("onnxruntime", reason=NO_ONNX)

LARGE = ("alexnet", "alexnet-2012")


def answer(model, images):
    """Return the outputs of onnxruntime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    if isinstance(images, list):
        return [session.run(None, {"images": batch})[0] for batch in images]
    return session.run(None, {"images": images})[0]


def assert_same_answers(name, num_images, batch_sizes, **fields):
    trained = random_network(name, **fields)
    images = photographs(num_images, trained.info.image_shape)
    expected = Classifier(trained).log_probs(images)
    assert np.ptp(expected, axis=0).max() > 0.01  # the answers depend on the images
    model = to_onnx(trained, make_card(trained, None), views=trained.config.eval_views)
    batches = [images[:size] for size in batch_sizes]
    for size, actual in zip(batch_sizes, answer(model, batches), strict=True):
        assert_close(actual, expected[:size], tolerance=1e-5)


VARIANTS = [
    *(f"lenet5:pool={pool}" for pool in ("min", "overlapping-max", "blurred-max", "none")),
    *(f"lenet5:padding={padding}" for padding in ("same", "valid", "full")),
    *("lenet5:double_softmax=true", "alexnet-32:dropout=0.5"),
]


# The networks with layers that ONNX lacks; the slow test has every network.
@pytest.mark.parametrize(
    "name", ["lenet5-1998", "cuda-convnet-13pct:lrn_size=5,pool=overlapping-average,local3=20"]
)
def test_onnx_gives_the_answers_of_jax(name):
    assert_same_answers(name, 16, (1, 16), eval_batch_size=16)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*sorted(MODELS), *VARIANTS])
def test_onnx_gives_the_answers_of_jax_for_every_network_and_batch_size(name):
    assert_same_answers(name, 100, (1, 16, 64, 100), eval_batch_size=100 if name in LARGE else 256)


@pytest.mark.slow
@pytest.mark.parametrize("size", [96, 256])  # 2x2 and 7x7 maps, averaged to 6x6
def test_onnx_averages_the_maps_of_alexnet_for_other_images(size):
    assert_same_answers("alexnet", 16, (1, 16), image_shape=(size, size, 3))


@pytest.mark.parametrize(
    ("views", "transforms"),
    [
        # Larger in height, smaller in width.
        pytest.param(1, (Resize(33), HorizontalFlip(), RandomCrop(28)), marks=pytest.mark.slow),
        pytest.param(2, (RandomCrop(28, padding=4),), marks=pytest.mark.slow),
        # Cut in width, padded in height.
        (10, (CenterCrop(35), RandomCrop(31), Resize(28))),
    ],
)
def test_onnx_preprocesses_and_averages_views_as_the_run_does(views, transforms):
    fields = {"image_shape": (31, 41, 1), "transforms": transforms, "eval_views": views}
    assert_same_answers("lenet5:pool=min", 8, (1, 8), eval_batch_size=8 * views, **fields)


def test_onnx_of_deslanted_images_is_refused_unless_they_are_preprocessed():
    trained = random_network("lenet5", transforms=(Deslant(),))
    with pytest.raises(UserError, match=r"^`transforms` has deslant, .*; export to .stablehlo, or"):
        to_onnx(trained, {})
    to_onnx(trained, {}, input="preprocessed")


def test_onnx_input_and_output_are_as_chosen():
    trained = random_network("lenet5-modern", transforms=(RandomCrop(28),), image_shape=(30, 30, 1))
    card = make_card(trained, None)
    raw = photographs(8, (30, 30, 1))
    classifier = Classifier(trained)
    expected = classifier.log_probs(raw)
    inputs = {
        "uint8": raw,
        "float32": raw.astype(np.float32),
        "preprocessed": np.asarray(classifier.preprocess(raw)),
    }
    for kind, images in inputs.items():
        assert_close(answer(to_onnx(trained, card, input=kind), images), expected)
    probabilities = to_onnx(trained, card, output="probabilities")
    assert_close(answer(probabilities, raw), np.exp(expected))
    assert [output.name for output in probabilities.graph.output] == ["probabilities"]


def test_onnx_model_has_the_names_of_the_paper_and_the_card():
    trained = random_network("lenet5-1998")
    result = {"steps": 7, "test_accuracy": 0.9}
    model = to_onnx(trained, make_card(trained, result))
    names = {node.name for node in model.graph.node}
    assert {"C1", "S2", "C3", "S4", "C5", "F6", "output"} <= names
    arrays = {array.name: onnx.numpy_helper.to_array(array) for array in model.graph.initializer}
    kernel = trained.params["C1"]["kernel"]
    np.testing.assert_array_equal(arrays["C1.weight"], np.transpose(kernel, (3, 2, 0, 1)))
    np.testing.assert_array_equal(arrays["C1.bias"], trained.params["C1"]["bias"])

    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["class_names"]) == list(trained.info.class_names)
    card = json.loads(properties["card"])
    assert card["model"] == "lenet5-1998" and card["test_accuracy"] == 0.9
    assert card["config"]["pixel_mean"] == [0.2] and card["config"]["workdir"] is None
    assert "test_accuracy" not in make_card(trained, {**result, "steps": 8})  # another checkpoint

    assert [opset.version for opset in model.opset_import] == [17]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
    }
    assert shapes["images"] == ["batch", 28, 28, 1] and shapes["log_probs"] == ["batch", 10]
    assert shapes["C3"] == ["batch", 16, 10, 10] and shapes["F6"] == ["batch", 84]


def test_onnx_of_an_unknown_network_or_without_the_package_is_refused(monkeypatch):
    trained = random_network("lenet5")
    other = trained._replace(model=Tiny())
    with pytest.raises(UserError, match="is a Tiny, which has no ONNX builder; expected one of"):
        to_onnx(other, {})
    other = trained._replace(model=trained.model.clone(activation=np.sin))
    with pytest.raises(UserError, match="LeNet5 has sin; expected one of sigmoid, tanh, relu"):
        to_onnx(other, {})
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(UserError, match=r"pip install 'jaxcnn\[onnx\]'"):
        to_onnx(trained, {})
