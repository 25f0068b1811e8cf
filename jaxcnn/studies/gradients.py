"""Claims about activations: saturation, gradients that vanish, and the start of training."""

from jaxcnn.studies.arms import RATES, lenet5
from jaxcnn.studies.gradient_measures import plateau
from jaxcnn.studies.study import Arm, Study

_ACTIVATIONS = {"sigmoid": "sigmoid", "tanh": "tanh", "ReLU": "relu"}
_INITIAL = {
    "LeCun 1998's values": "paper",
    "Efficient BackProp's": "lecun-uniform",
    "Glorot's": "glorot",
}

PLATEAU = Study(
    name="plateau",
    claim="Sigmoids saturate and let gradients vanish, so that training starts with a plateau.",
    source="the course notebook; Glorot and Bengio 2010, section 3",
    arms=tuple(
        Arm(
            f"{activation}, {initial}",
            lenet5(
                f"lenet5:activation={_ACTIVATIONS[activation]},initial={_INITIAL[initial]}",
                epochs=2,
                log_every_steps=10,
                eval_every_epochs=2,
            ),
            expected=0 if activation == "sigmoid" else -1,
        )
        for initial in _INITIAL
        for activation in _ACTIVATIONS
    ),
    quantity="log_plateau",
    label="log10 of the steps until half of the training images are answered rightly",
    measure=plateau,
    is_rate=False,
    falsifier="A network with another activation and the same initial values needs as many steps, "
    "or its gradients vanish as much.",
    also={
        "plateau": "steps",
        "test_error": "test error after 2 epochs (%)",
        "gradient_ratio": "log10 of C1's gradient over the output's, at the start",
        "flat_start": "flat units at the start (%)",
        "flat_end": "flat units after 2 epochs (%)",
    },
    seconds=12,
    rates=RATES,
    comment="The gradient of a layer is the root mean square of the loss's gradient by its kernel. "
    "A unit is flat where the derivative of its activation is below 19 % of the largest, which for "
    "a sigmoid means outputs outside of 0.05 to 0.95; rectified units are flat at 0. A run that "
    "never reaches one half counts with its 1,874 steps. Adam divides gradients by their size and "
    "so hides most of what vanishes. Hardly any sigmoid is flat at the start: its gradient "
    "vanishes because the derivative of a sigmoid is at most a quarter.",
)
