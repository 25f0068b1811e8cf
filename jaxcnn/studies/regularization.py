"""Claims about regularization: what it takes to generalize, and to fit random labels."""

from jaxcnn.config import OptimizerConfig
from jaxcnn.data.transforms import CenterCrop, Transform
from jaxcnn.studies.cifar import CROPS, local
from jaxcnn.studies.measures import train_and_test_error
from jaxcnn.studies.study import Arm, Study

_IMAGES = 5_000
_EPOCHS = 40
_DECAY = 4e-3  # that of cuda-convnet in the locally connected layers and the output


def _arm(
    name: str,
    *,
    transforms: tuple[Transform, ...] = (CenterCrop(24),),
    weight_decay: float = 0.0,
    dropout: float = 0.0,
    label_noise: float = 0.0,
) -> Arm:
    model = "cuda-convnet-13pct:initial=lecun-uniform"
    regularized = transforms == CROPS or weight_decay or dropout
    return Arm(
        name,
        local(
            model=f"{model},dropout={dropout}" if dropout else model,
            transforms=transforms,
            optimizer=OptimizerConfig(
                name="sgd-2012",
                learning_rate=2e-2,
                bias_rate=2.0,
                schedule="cosine",
                weight_decay=weight_decay,
            ),
            epochs=_EPOCHS,
            eval_every_epochs=_EPOCHS,
            train_examples=_IMAGES,
            label_noise=label_noise,
            eval_training=True,
        ),
        expected=1 if label_noise else -1 if regularized else 0,
    )


REGULARIZERS = Study(
    name="regularizers",
    claim="Regularization lowers the test error, but a network generalizes without it; and the "
    "network that generalizes can also fit random labels.",
    source="Zhang et al. 2017, sections 2 and 3 and table 1; of dropout, Krizhevsky et al. 2012, "
    "section on reducing overfitting",
    arms=(
        _arm("none"),
        _arm("crops and mirror images", transforms=CROPS),
        _arm("weight decay", weight_decay=_DECAY),
        _arm("dropout", dropout=0.5),
        _arm("none, random labels", label_noise=1.0),
    ),
    quantity="test_error",
    label="test error on CIFAR-10 (%)",
    measure=train_and_test_error,
    falsifier="The network without regularization does not learn the random labels, its training "
    "error stays above 10 %; or no regularizer has a paired difference below 0.",
    also={
        "training_error": "error on the training images (%)",
        "gap": "test error above it (points)",
    },
    num_seeds=3,
    seconds=150,
    comment="The network is cuda-convnet's of 13 % error, with 1,116,490 parameters, which trains "
    "on 5,000 images for 40 epochs. Without augmentation it sees the central crop of 24x24; "
    "crops are random, and half of them mirrored. The weight decay is 0.004, which cuda-convnet "
    "has in the locally connected layers and the output; dropout precedes the output. Random "
    "labels are drawn once, uniformly. All arms have the rate that the study `relu` chose for this "
    "network, because with random labels there is nothing to validate on. Training errors are "
    "those of the labels that are trained on, without augmentation or dropout, after the last "
    "epoch. Zhang et al. train a small AlexNet of 1,387,786 parameters on all 50,000 images; their "
    "test errors are 23.93 % without regularization, 22.64 with weight decay, 20.34 with crops and "
    "18.78 with both. With random labels, the training error is 0.18 % and the test error "
    "90.14 %.",
)
