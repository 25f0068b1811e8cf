"""Claims about learning curves: the error over passes, and over the size of the training set."""

import math
from collections.abc import Mapping

from jaxcnn.data.transforms import Affine
from jaxcnn.studies.arms import config
from jaxcnn.studies.measures import errors_by_epoch, train_and_test_error
from jaxcnn.studies.study import Arm, Curve, Derived, Measured, Published, Study

_PAPER = "LeCun et al. 1998"
_PASSES = tuple(range(1, 21))

# Figure 5, digitised: test error, and training error counted during the pass, in percent.
_TEST = (
    *(2.65, 2.23, 1.48, 1.42, 1.42, 1.09, 1.04, 1.06, 0.99, 0.96),
    *(0.96, 0.99, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96, 0.96),
)
_TRAINING = (
    *(4.89, 3.04, 1.77, 1.48, 1.22, 0.91, 0.77, 0.70, 0.57, 0.49),
    *(0.46, 0.44, 0.41, 0.38, 0.38, 0.38, 0.38, 0.36, 0.36, 0.36),
)
_FIGURE_5 = f"{_PAPER}, figure 5 (digitised)"

PASSES = Study(
    name="passes",
    claim="The test error settles within 10 to 12 passes at 0.95 %, without over-training; the "
    "training error only seems larger at first, because it is counted while the network changes.",
    source=f"{_PAPER}, III.B and figure 5",
    arms=(
        Arm(
            "LeNet-5 of 1998",
            config("lenet5-1998-mnist", eval_training=True),
            Published(0.95, f"{_PAPER}, III.B, after 20 passes", "text", 10_000),
        ),
    ),
    quantity="test_error",
    label="test error on MNIST after 20 passes (%)",
    measure=errors_by_epoch,
    falsifier="Counted again after the first pass, the training error is still larger than the "
    "test error; or the test error rises after its minimum by more than the sampling error.",
    curves=(
        Curve(
            "test_errors",
            _PASSES,
            "pass",
            "test error (%)",
            published={_FIGURE_5: dict(zip(_PASSES, _TEST, strict=True))},
        ),
        Curve(
            "training_errors_during",
            _PASSES,
            "pass",
            "training error during the pass (%)",
            published={_FIGURE_5: dict(zip(_PASSES, _TRAINING, strict=True))},
        ),
        Curve("training_errors_after", _PASSES, "pass", "training error after the pass (%)"),
    ),
    also={
        "training_error_during_1": "training error during pass 1 (%)",
        "training_error_after_1": "training error after pass 1 (%)",
        "test_error_1": "test error after pass 1 (%)",
        "rise": "test error after pass 20, above its minimum (points)",
    },
    seconds=300,
    comment="The network and its training are those of the preset `lenet5-1998-mnist`; "
    "[The networks of 1998 and 2012](../history.md) lists our choices where the paper is silent. "
    "The plot of the paper has 21 points, its text counts 20 passes.",
)


def _size(name: str, published: Published, **fields: object) -> Arm:
    return Arm(
        name,
        config("lenet5-1998-minibatch-mnist", eval_training=True, epochs=10, **fields),
        published,
        expected=0 if "15,000" in name else -1,
    )


def _exponent(arms: Mapping[str, Measured]) -> float:
    """Return alpha of E_test - E_train = k (h / P)^alpha: a line through the logarithms."""
    points = []
    for name in _SIZES:
        test, training = (arms[name][quantity] for quantity in ("test_error", "training_error"))
        assert not isinstance(test, list) and not isinstance(training, list)
        if test <= training:  # there is no logarithm
            return math.nan
        points.append((math.log(_SIZES[name]), math.log(test - training)))
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return -slope / sum((x - mean_x) ** 2 for x, _ in points)


_SIZES = {"15,000 images": 15_000, "30,000 images": 30_000, "60,000 images": 60_000}

SIZE = Study(
    name="size",
    claim="More training images lower the test error, as (h / P)^alpha with alpha between 0.5 and "
    "1, and raise the training error; distorted images lower it further.",
    source=f"{_PAPER}, I.A, eq. 1, and figure 6",
    arms=(
        _size(
            "15,000 images",
            Published(1.68, f"{_PAPER}, figure 6", "digitised", 10_000),
            train_examples=15_000,
        ),
        _size(
            "30,000 images",
            Published(1.14, f"{_PAPER}, figure 6", "digitised", 10_000),
            train_examples=30_000,
        ),
        _size("60,000 images", Published(0.95, f"{_PAPER}, III.B", "text", 10_000)),
        _size(
            "60,000 images, distorted",
            Published(0.8, f"{_PAPER}, III.B", "text", 10_000),
            transforms=(Affine(translate=2.0, scale=0.15, squeeze=0.15, shear=10.0),),
        ),
    ),
    quantity="test_error",
    label="test error on MNIST (%)",
    measure=train_and_test_error,
    falsifier="The error does not fall with the number of images in every seed, or the exponent's "
    "interval excludes 0.5 to 1.",
    also={"training_error": "training error (%)"},
    derived=(
        Derived(
            "alpha", "exponent alpha of eq. 1, from the three sizes without distortions", _exponent
        ),
    ),
    seconds=40,
    comment="The network is that of 1998, trained with minibatches and Adam "
    "(`lenet5-1998-minibatch-mnist`) for 10 passes over each set. A smaller set is a part of "
    "a larger one. Training errors are counted after the last pass, without distortions; the "
    "paper's figure has 0.055, 0.31 and 0.35 % for the three sizes (digitised), counted "
    "during it. Distortions are drawn anew in each pass: shifts by up to 2 pixels, scales and"
    " squeezes by up to 15 %, shears by up to 10 degrees; the paper draws nine of each digit "
    "before training and prints no ranges.",
)
