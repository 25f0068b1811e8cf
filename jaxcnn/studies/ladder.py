"""Claims about 1998: which of the paper's peculiarities matter, one change at a time."""

from jaxcnn.studies.arms import config
from jaxcnn.studies.measures import test_error
from jaxcnn.studies.study import Arm, Study

_1998 = "lenet5-1998-lecun-uniform"
_NOTEBOOKS_PIXELS = {"pixel_mean": (0.5,), "pixel_std": (0.5,)}


def _step(name: str, model: str, **fields: object) -> Arm:
    return Arm(name, config("lenet5-1998-minibatch-mnist", model=model, epochs=5, **fields))


THEN_AND_NOW = Study(
    name="then-and-now",
    claim="What courses simplify in LeNet-5, to full connections, average pools, a softmax and "
    "sigmoids, does not change its test error.",
    source="the course notebook, of LeCun et al. 1998, section II.B",
    arms=(
        _step("1998", _1998),
        _step("C3 connected to all maps", f"{_1998}:full_c3=true"),
        _step("average pools", f"{_1998}:full_c3=true,pool=average"),
        _step("softmax", "lenet5:activation=squash,initial=lecun-uniform"),
        _step("sigmoid", "lenet5:initial=lecun-uniform"),
        _step("pixels and initial values", "lenet5:initial=torch", **_NOTEBOOKS_PIXELS),
        _step("ReLU, maximum pools", "lenet5-relu:initial=torch", **_NOTEBOOKS_PIXELS),
    ),
    quantity="test_error",
    label="test error on MNIST (%)",
    measure=test_error,
    falsifier="A step differs from the step before: the interval of its paired difference excludes "
    "0.",
    stepwise=True,
    seconds=20,
    rates=(1e-3, 2e-3),
    comment="Each row keeps the changes of the rows above. All rows are trained with Adam, a "
    "cosine schedule and minibatches of 64 for 5 epochs. The first row is LeNet-5 of the paper: "
    "1.7159 tanh(2a/3), Table I, trainable subsampling, distances to fixed bitmaps. The fourth "
    "replaces the bitmaps and their criterion by a linear layer and cross-entropy; from there on, "
    "zeros instead of white surround the image. The sixth is the notebook's network, pixels and "
    "initial values, with one softmax.",
)
