"""Figures 9 and 10 of 1998: the classifiers of digits that the paper compares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

from jaxcnn.config import TrainConfig
from jaxcnn.data.transforms import Affine, CenterCrop, Deslant, Resize, Transform
from jaxcnn.studies.arms import config
from jaxcnn.studies.digit_measures import (
    boosted,
    closed_form,
    error_and_rejection,
    last_layer_by_neighbors,
)
from jaxcnn.studies.digits_figure import save_figure
from jaxcnn.studies.study import Arm, Derived, Measured, Published, Study

_PAPER = "LeCun et al. 1998"

DISTORTED = (Affine(translate=2.0, scale=0.15, squeeze=0.15, shear=10.0),)
DESLANTED = (Deslant(), CenterCrop(20))
SIXTEEN = (CenterCrop(20), Resize(16), CenterCrop(28))  # the digit in 16x16, centred in 28x28

# Test error of figure 9, and rejection of figure 10 where it has one, in percent.
PRINTED: dict[str, tuple[float, float | None]] = {
    "linear": (12.0, None),
    "linear, deslanted": (8.4, None),
    "pairwise linear": (7.6, None),
    "nearest neighbours": (5.0, None),
    "nearest neighbours, deslanted": (2.4, 8.1),
    "40 components, quadratic": (3.3, None),
    "1000 radial units": (3.6, None),
    "300": (4.7, None),
    "300, distorted": (3.6, None),
    "300, deslanted": (1.6, 3.2),
    "1000": (4.5, None),
    "1000, distorted": (3.8, None),
    "300-100": (3.05, None),
    "300-100, distorted": (2.5, None),
    "500-150": (2.95, None),
    "500-150, distorted": (2.45, None),
    "LeNet-1, 16x16": (1.7, 3.7),
    "LeNet-4": (1.1, 1.8),
    "LeNet-4, neighbours": (1.1, 1.6),
    "LeNet-5": (0.95, None),
    "LeNet-5, distorted": (0.8, None),
    "LeNet-4, boosted, distorted": (0.7, 0.5),
}


def _config(model: str, *transforms: Transform, **fields: object) -> TrainConfig:
    return config(
        "lenet5-1998-minibatch-mnist", model=model, epochs=10, transforms=transforms, **fields
    )


def _arm(name: str, config: TrainConfig, *, expected: Literal[-1, 1] = 1, **fields: Any) -> Arm:
    error, rejected = PRINTED.get(name, (None, None))
    return Arm(
        name,
        config,
        Published(error, f"{_PAPER}, figure 9", "text", 10_000) if error else None,
        expected=0 if name == "LeNet-5" else expected,
        also_published={"rejection": Published(rejected, f"{_PAPER}, figure 10", "text")}
        if rejected
        else {},
        **fields,
    )


def _fitted(name: str, fit: Callable[[TrainConfig], Measured], *transforms: Transform) -> Arm:
    return _arm(name, _config("linear", *transforms), fit=fit)


_LENET5 = "lenet5-1998-lecun-uniform"
_LENET4_DISTORTED = _config("lenet4", *DISTORTED)

_ARMS = (
    _arm("LeNet-5", _config(_LENET5, eval_training=True)),
    _fitted("linear", partial(closed_form, "linear")),
    _fitted("linear, deslanted", partial(closed_form, "linear"), *DESLANTED),
    _arm("linear, cross-entropy", _config("linear")),
    _arm("linear, cross-entropy, deslanted", _config("linear", *DESLANTED)),
    _fitted("pairwise linear", partial(closed_form, "pairwise_linear")),
    _fitted("nearest neighbours", partial(closed_form, "nearest_neighbors")),
    _fitted("nearest neighbours, deslanted", partial(closed_form, "nearest_neighbors"), *DESLANTED),
    _fitted("40 components, quadratic", partial(closed_form, "pca_quadratic")),
    _fitted("1000 radial units", partial(closed_form, "rbf")),
    _arm("300", _config("mlp-300")),
    _arm("300, distorted", _config("mlp-300", *DISTORTED)),
    _arm("300, deslanted", _config("mlp-300", *DESLANTED)),
    _arm("1000", _config("mlp-1000")),
    _arm("1000, distorted", _config("mlp-1000", *DISTORTED)),
    _arm("300-100", _config("mlp-300-100")),
    _arm("300-100, distorted", _config("mlp-300-100", *DISTORTED)),
    _arm("500-150", _config("mlp-500-150")),
    _arm("500-150, distorted", _config("mlp-500-150", *DISTORTED)),
    _arm("LeNet-1, 16x16", _config("lenet1", *SIXTEEN)),
    _arm("LeNet-4", _config("lenet4")),
    _arm("LeNet-4, neighbours", _config("lenet4"), measure=last_layer_by_neighbors),
    _arm("LeNet-4, distorted", _LENET4_DISTORTED, expected=-1),
    _arm("LeNet-4, boosted, distorted", _LENET4_DISTORTED, expected=-1, measure=boosted),
    _arm("LeNet-5, distorted", _config(_LENET5, *DISTORTED, eval_training=True), expected=-1),
)


def _same_order(arms: Mapping[str, Measured]) -> float:
    """Return the percentage of the pairs of bars, apart in print, that are in the same order."""
    agree = []
    for first, second in itertools.combinations(PRINTED, 2):
        printed = PRINTED[first][0] - PRINTED[second][0]
        ours, others = (arms[name]["test_error"] for name in (first, second))
        assert not isinstance(ours, list) and not isinstance(others, list)
        if abs(printed) >= 0.3:  # three times the uncertainty that the paper quotes
            agree.append((ours - others) * printed > 0)
    return 100 * sum(agree) / len(agree)


DIGITS = Study(
    name="digits",
    claim="The error falls from linear classifiers over neighbours and perceptrons to "
    "convolutional networks, of which LeNet-5 is the best without distortions, and boosted LeNet-4 "
    "with them; figure 9 prints by how much.",
    source=f"{_PAPER}, III.C, figures 9 and 10",
    arms=_ARMS,
    quantity="test_error",
    label="test error on MNIST (%)",
    measure=error_and_rejection,
    falsifier="Of the pairs of bars that are at least 0.3 points apart in print, fewer than 90 % "
    "have the same order here; or another network without distortions is better than LeNet-5.",
    also={"rejection": "rejected for an error of 0.5 % (%)"},
    derived=(
        Derived(
            "same_order",
            "pairs of bars at least 0.3 points apart in print that have the same order here (%)",
            _same_order,
        ),
    ),
    figure=save_figure,
    seconds=25,
    rates=(5e-4, 1e-3, 2e-3),
    comment="The study has 22 of the 27 bars of figure 9. It leaves out tangent distance, the "
    "three support vector machines and LeNet-4 / Local. Numbers such as 300-100 are the hidden "
    "units of perceptrons. Networks are trained with minibatches of 64, Adam and a cosine "
    "schedule for 10 epochs, LeNet-5 with the paper's criterion, the others with "
    "cross-entropy; the paper trained with its second-order method and squared errors. The "
    "two rows of cross-entropy are linear classifiers trained in this way; the other linear "
    "ones, the quadratic and the radial units are fitted by least squares. Distortions are "
    "drawn anew in each epoch. A fitted classifier is the same for every seed, except for the"
    " radial units, whose centres start from random images. An answer is rejected if the "
    "difference between the two largest scores is small. [LeNet-4](../history.md) has more "
    "parameters than the paper says.",
)
