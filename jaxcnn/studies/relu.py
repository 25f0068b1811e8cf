"""Figure 1 of 2012: how fast rectified units and tanh train the same network."""

from __future__ import annotations

import operator
from collections.abc import Mapping

from jaxcnn.config import OptimizerConfig
from jaxcnn.data.transforms import CenterCrop
from jaxcnn.presets import CIFAR10_STD
from jaxcnn.studies.arms import config
from jaxcnn.studies.measures import epochs_to_quarter
from jaxcnn.studies.study import Arm, Curve, Derived, Published, Study, of_two

_PAPER = "Krizhevsky et al. 2012, figure 1"

# Digitised: training error in percent by epoch.
_RELU: Mapping[float, float] = {1: 47.2, 2: 37.8, 3: 32.1, 4: 28.8, 5: 26.3, 6: 25.0}
_TANH: Mapping[float, float] = {
    **{1: 55.3, 2: 49.6, 4: 43.4, 5: 42.0, 7: 40.0, 10: 36.8, 16: 32.6, 20: 31.8},
    **{23: 30.0, 30: 27.4, 32: 25.9, 36: 25.0},
}
_SMALL = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)  # for pixels in 0..255
_LARGE = (5e-3, 1e-2, 2e-2, 4e-2)  # for pixels of variance 1


def _arm(activation: str, epochs: int, published: float | None = None, **fields: object) -> Arm:
    """Return an arm without any regularization."""
    by_fan_in = published is None
    model = f"cuda-convnet-13pct:activation={activation.lower()}"
    return Arm(
        f"{activation}, by fan-in" if by_fan_in else activation,
        config(
            "cuda-convnet-11pct-cifar10",
            model=f"{model},initial=lecun-uniform" if by_fan_in else model,
            transforms=(CenterCrop(24),),
            pixel_std=CIFAR10_STD if by_fan_in else (1 / 255,),
            optimizer=OptimizerConfig(name="sgd-2012", bias_rate=2.0),
            epochs=epochs,
            eval_views=1,
            log_every_steps=195,  # half an epoch
            eval_every_epochs=max(epochs, 10),  # at the end only
        ),
        Published(published, f"{_PAPER}, caption", "text") if published else None,
        expected=1 if activation == "tanh" else 0,
        rates=_LARGE if by_fan_in else _SMALL,
    )


RELU = Study(
    name="relu",
    claim="A network of four layers reaches a training error of 25 % on CIFAR-10 six times faster "
    "with rectified units than with tanh.",
    source=_PAPER,
    arms=(
        _arm("ReLU", 8, 6),
        _arm("tanh", 24, 36),
        _arm("ReLU", 8),
        _arm("tanh", 8),
    ),
    quantity="epochs",
    label="epochs to a training error of 25 %",
    measure=epochs_to_quarter,
    falsifier="With the best rate of each, tanh takes less than twice as long, with the source's "
    "initial values or with others.",
    is_rate=False,
    curves=(
        Curve(
            "training_errors",
            tuple(range(1, 25)),
            "epoch",
            "training error during the epoch (%)",
            published={f"ReLU, {_PAPER} (digitised)": _RELU, "tanh, the same": _TANH},
        ),
    ),
    derived=(
        Derived(
            "ratio",
            "epochs with tanh over epochs with ReLU, with the source's initial values",
            of_two("tanh", "ReLU", "epochs", operator.truediv),
        ),
        Derived(
            "ratio_by_fan_in",
            "the same, with initial values by fan-in",
            of_two("tanh, by fan-in", "ReLU, by fan-in", "epochs", operator.truediv),
        ),
    ),
    num_seeds=3,
    seconds=600,
    trial_epochs=2,
    comment="The network has two convolutions and two locally connected layers, which the paper "
    "calls a four-layer CNN in its results on CIFAR-10; which one figure 1 used, it does not say. "
    "Images are central crops of 24x24; nothing is augmented, no weight decays. The training error "
    "is counted during the epoch, and interpolated between epochs. The first two arms have "
    "cuda-convnet's initial values, normal with fixed deviations, for pixels in 0..255. The other "
    "two have uniform values of variance 1 / fan-in, for pixels of variance 1. An arm that does "
    "not reach 25 % counts with all of its epochs, 24 for tanh, so that its ratio is a lower "
    "bound.",
)
