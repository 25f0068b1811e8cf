"""Claims about padding: what becomes of the border, and where a network learns its place."""

from jaxcnn.studies.arms import RATES, lenet5
from jaxcnn.studies.image_measures import MARGINS, borders
from jaxcnn.studies.study import Arm, Curve, Study

PADDING = Study(
    name="padding",
    claim="Padding keeps the information at the border of an image; without padding it is lost.",
    source="the course notebook",
    arms=(
        Arm("valid", lenet5("lenet5-tanh:padding=valid")),
        Arm("same, zeros", lenet5("lenet5-tanh:padding=same"), expected=-1),
        Arm("same, reflected", lenet5("lenet5-tanh:padding=reflect"), expected=-1),
        Arm("same, circular", lenet5("lenet5-tanh:padding=circular"), expected=-1),
        Arm("full, zeros", lenet5("lenet5-tanh:padding=full"), expected=-1),
    ),
    quantity="border_extra",
    label="extra test error of digits that touch a border (points)",
    measure=borders,
    is_rate=False,
    falsifier="The extra error without padding is not larger: the paired difference of a padding "
    "includes 0.",
    also={
        "test_error": "test error (%)",
        "position": "place read from C3's maps (% of its variance)",
    },
    curves=(
        Curve("margin_error", MARGINS, "distance from the border (pixels)", "test error (%)"),
        Curve(
            "border_gradient",
            MARGINS,
            "distance from the border (pixels)",
            "gradient (% of mean)",
        ),
    ),
    seconds=30,
    rates=RATES,
    comment="All networks have tanh, average pools and 61,706 parameters; C1 and C3 have the "
    "padding, S4 averages 5x5 regions. Digits are moved to each of the four sides. The last column "
    "is the share of the variance of row and column that a linear function of the maps of C3 "
    "explains on images of noise, after Kayhan and van Gemert 2020 and Islam et al. 2020: the "
    "maps know their place only through the padding.",
)
