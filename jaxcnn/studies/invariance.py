"""Claims about pooling: what shifts, scales, rotations and noise do to the answers."""

from typing import Literal

from jaxcnn.data.transforms import Affine, Invert
from jaxcnn.studies.arms import lenet5
from jaxcnn.studies.image_measures import (
    DEGREES,
    DEVIATIONS,
    INVERTED,
    PIXELS,
    SCALES,
    invariance,
    noise,
)
from jaxcnn.studies.study import Arm, Curve, Study

PAPER = "LeCun et al. 1998, III.E"
SHIFTS = (Affine(translate=4.0),)
NOISY = (Invert(p=0.1),)


def _pools(*, expected: Literal[-1, 1]) -> tuple[Arm, ...]:
    """Return an arm for each pool; the first has none."""
    return (
        Arm("no pool", lenet5("lenet5-tanh:pool=none")),
        Arm("average", lenet5("lenet5-tanh"), expected=expected),
        Arm("maximum", lenet5("lenet5-tanh:pool=max"), expected=expected),
        Arm("minimum", lenet5("lenet5-tanh:pool=min"), expected=expected),
        Arm("overlapping maximum", lenet5("lenet5-tanh:pool=overlapping-max"), expected=expected),
        Arm("blurred maximum", lenet5("lenet5-tanh:pool=blurred-max"), expected=expected),
    )


SHIFT = Study(
    name="shift",
    claim="Pooling makes LeNet-5's answers invariant to shifts.",
    source="the course notebook; LeCun et al. 1998, section II.A, of subsampling",
    arms=(
        *_pools(expected=1),
        Arm("perceptron, 300 hidden units", lenet5("mlp-300")),
        Arm("linear", lenet5("linear")),
        Arm("no pool, trained with shifts", lenet5("lenet5-tanh:pool=none", transforms=SHIFTS)),
        Arm("average, trained with shifts", lenet5("lenet5-tanh", transforms=SHIFTS)),
        Arm("maximum, trained with shifts", lenet5("lenet5-tanh:pool=max", transforms=SHIFTS)),
    ),
    quantity="consistency_3",
    label="same answer after a shift by 3 pixels (% of the test images)",
    measure=invariance,
    falsifier="A network without pools and with as many parameters, whose convolutions have "
    "stride 2, is as consistent: the paired difference includes 0.",
    curves=(
        Curve("consistency", PIXELS, "shift (pixels)", "same answer as unshifted (%)"),
        Curve("accuracy", PIXELS, "shift (pixels)", "accuracy (%)", {10: f"half a digit: {PAPER}"}),
        Curve(
            "scale_accuracy",
            SCALES,
            "scale",
            "accuracy (%)",
            {0.5: f"factor 2: {PAPER}", 2.0: f"factor 2: {PAPER}"},
        ),
        Curve(
            "rotation_accuracy",
            DEGREES,
            "rotation (degrees)",
            "accuracy (%)",
            {30: f"30 degrees: {PAPER}"},
        ),
    ),
    seconds=40,
    rates=(1e-3, 2e-3),
    comment="The convolutional networks have tanh and 61,706 parameters, the two controls 238,510 "
    "and 7,850. All are trained on unshifted digits, the last three on digits shifted by up to 4 "
    "pixels. The dotted lines mark where the paper "
    "estimates that LeNet-5 still recognizes accurately; it prints no rate there.",
)

NOISE = Study(
    name="noise",
    claim="Pooling filters noise; pooling by the minimum suppresses it.",
    source="the course notebook",
    arms=(
        *_pools(expected=-1),
        Arm("ReLU, maximum", lenet5("lenet5-relu"), expected=-1),
        Arm("ReLU, minimum", lenet5("lenet5-relu:pool=min"), expected=-1),
        Arm("average, trained with noise", lenet5("lenet5-tanh", transforms=NOISY), expected=-1),
        Arm(
            "maximum, trained with noise",
            lenet5("lenet5-tanh:pool=max", transforms=NOISY),
            expected=-1,
        ),
    ),
    quantity="inverted_error_10",
    label="test error with every tenth pixel inverted at random (%)",
    measure=noise,
    falsifier="A network without pools and with as many parameters, whose convolutions have "
    "stride 2, makes as few errors on noisy images: the paired difference includes 0.",
    curves=(
        Curve(
            "inverted_error",
            INVERTED,
            "probability that a pixel is inverted",
            "test error (%)",
            {0.1: f"figure 13: {PAPER}"},
        ),
        Curve("gaussian_error", DEVIATIONS, "standard deviation (of 255)", "test error (%)"),
    ),
    seconds=25,
    rates=(1e-3, 2e-3),
    comment="All networks have 61,706 parameters and, but for two, tanh; they are trained on "
    "digits that are white on black, clean or with a tenth of the pixels inverted. With an odd "
    "activation, pooling by the minimum is pooling by the maximum: min tanh(a) is -max tanh(-a), "
    "and the signs move into the weights, so that the two are the same network whatever the "
    "contrast. With ReLU they differ. The dotted line is the noise with which the network of the "
    "paper's figure 13 was trained; the paper prints no error rate.",
)
