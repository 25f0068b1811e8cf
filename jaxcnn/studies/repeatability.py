"""Claims about single printed numbers: what another seed gives."""

from jaxcnn.presets import PRESETS
from jaxcnn.studies.measures import test_error
from jaxcnn.studies.study import Arm, Published, Study

NOTEBOOK = Published(
    value=1.94,
    source="the course notebook, the last line that its LeNet-5 prints: 98.06 % of 10,000 images",
    how="text",
    num_examples=10_000,
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
