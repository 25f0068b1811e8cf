"""STUDIES maps the name of each study to it; one file holds each family of claims."""

from jaxcnn.studies.alexnet_layers import LRN, POOLING
from jaxcnn.studies.answers import ENSEMBLES, NEIGHBOURS, VIEWS
from jaxcnn.studies.borders import PADDING
from jaxcnn.studies.calculation import Calculation
from jaxcnn.studies.cost import COST
from jaxcnn.studies.digits import DIGITS
from jaxcnn.studies.gradients import PLATEAU
from jaxcnn.studies.invariance import NOISE, SHIFT
from jaxcnn.studies.ladder import THEN_AND_NOW
from jaxcnn.studies.learning import PASSES, SIZE
from jaxcnn.studies.regularization import REGULARIZERS
from jaxcnn.studies.relu import RELU
from jaxcnn.studies.repeatability import PRINTOUT, SEEDS
from jaxcnn.studies.study import Study

STUDIES: dict[str, Study | Calculation] = {
    study.name: study
    for study in (
        *(SEEDS, COST, PRINTOUT, SIZE, PASSES, PLATEAU, SHIFT, NOISE, PADDING, THEN_AND_NOW),
        *(DIGITS, RELU, POOLING, LRN, REGULARIZERS, VIEWS, ENSEMBLES, NEIGHBOURS),
    )
}
