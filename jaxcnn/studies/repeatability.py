"""Claims about single printed numbers: what another seed gives."""

from collections.abc import Mapping

from jaxcnn.presets import PRESETS
from jaxcnn.studies.arms import lenet5
from jaxcnn.studies.measures import loss_by_epoch, test_error
from jaxcnn.studies.study import Arm, Curve, Derived, Measured, Published, Study

NOTEBOOK = Published(
    value=1.94,
    source="the course notebook, the last line that its LeNet-5 prints: 98.06 % of 10,000 images",
    how="text",
    num_examples=10_000,
)

# Printed after each epoch.
LOSSES = (1.9387, 1.6223, 1.5341, 1.5117, 1.5015, 1.4952, 1.4908, 1.4883, 1.4865, 1.4841)


def _loss_gap(arms: Mapping[str, Measured]) -> float:
    losses = arms["two softmaxes"]["train_loss"]
    assert isinstance(losses, list)
    return sum(abs(ours - theirs) for ours, theirs in zip(losses, LOSSES, strict=False)) / len(
        losses
    )


PRINTOUT = Study(
    name="notebook",
    claim="LeNet-5 with two softmaxes trains to a loss of 1.4841 and to 98.06 % on MNIST.",
    source="the course notebook, the output of its training cell",
    arms=(
        Arm("two softmaxes", lenet5("lenet5:initial=torch,double_softmax=true"), NOTEBOOK),
        Arm(
            "two softmaxes, linen's initial values", lenet5("lenet5:double_softmax=true"), NOTEBOOK
        ),
        Arm("one softmax", lenet5("lenet5:initial=torch"), expected=-1),
        Arm("one softmax, linen's initial values", lenet5("lenet5"), expected=-1),
    ),
    quantity="test_error",
    label="test error on MNIST (%)",
    measure=loss_by_epoch,
    falsifier="The printed losses lie outside the band of our seeds.",
    curves=(
        Curve(
            "train_loss",
            tuple(range(1, 11)),
            "epoch",
            "training loss",
            published={"printed by the notebook (text)": dict(enumerate(LOSSES, 1))},
        ),
    ),
    derived=(
        Derived(
            "loss_gap",
            "mean absolute difference of our ten losses, with two softmaxes, from the printed ones",
            _loss_gap,
        ),
    ),
    seconds=20,
    comment="Softmax of one-hot probabilities gives each wrong class 1 / (e + 9), so that the loss "
    "of two softmaxes stays above log(e + 9) - 1 = 1.4612. PyTorch's initial values are the "
    "notebook's. The learning rate is the notebook's, 1e-3, in all arms.",
)

SEEDS = Study(
    name="seeds",
    claim="LeNet-5, trained as in the course notebook, reaches 98.06 % on MNIST.",
    source="the course notebook",
    arms=(Arm("lenet5-mnist", PRESETS["lenet5-mnist"].config, published=NOTEBOOK),),
    quantity="test_error",
    label="test error on MNIST (%)",
    measure=test_error,
    falsifier="1.94 % lies outside the interval of our mean, widened by the sampling error of "
    "10,000 images.",
    num_seeds=30,
    seconds=20,
    comment="The notebook's network applies softmax twice, ours once. The spread over seeds is "
    "that of the training; the sampling error of a finite test set is added to it in each printed "
    "number.",
)
