"""Claims about pooling and what moves: shifts, scales and rotations of the digits."""

import dataclasses

from jaxcnn.config import TrainConfig
from jaxcnn.data.transforms import Affine
from jaxcnn.presets import PRESETS
from jaxcnn.studies.measures import DEGREES, PIXELS, SCALES, invariance
from jaxcnn.studies.study import Arm, Curve, Study

PAPER = "LeCun et al. 1998, III.E"
SHIFTS = (Affine(translate=4.0),)


def _lenet5(model: str, **fields: object) -> TrainConfig:
    preset = PRESETS["lenet5-mnist"]
    return preset.name(dataclasses.replace(preset.config, model=model, **fields))  # type: ignore[arg-type]


SHIFT = Study(
    name="shift",
    claim="Pooling makes LeNet-5's answers invariant to shifts.",
    source="the course notebook; LeCun et al. 1998, section II.A, of subsampling",
    arms=(
        Arm("no pool", _lenet5("lenet5-no-pool")),
        Arm("average", _lenet5("lenet5-tanh"), expected=1),
        Arm("maximum", _lenet5("lenet5-max-pool"), expected=1),
        Arm("minimum", _lenet5("lenet5-min-pool"), expected=1),
        Arm("overlapping maximum", _lenet5("lenet5-overlapping-pool"), expected=1),
        Arm("blurred maximum", _lenet5("lenet5-blur-pool"), expected=1),
        Arm("no pool, trained with shifts", _lenet5("lenet5-no-pool", transforms=SHIFTS)),
        Arm("average, trained with shifts", _lenet5("lenet5-tanh", transforms=SHIFTS)),
        Arm("maximum, trained with shifts", _lenet5("lenet5-max-pool", transforms=SHIFTS)),
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
    comment="All networks have tanh and 61,706 parameters and are trained on unshifted digits, the "
    "last three on digits shifted by up to 4 pixels. The dotted lines mark where the paper "
    "estimates that LeNet-5 still recognizes accurately; it prints no rate there.",
)
