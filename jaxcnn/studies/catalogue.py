"""STUDIES maps the name of each study to it; one file holds each family of claims."""

from jaxcnn.studies.invariance import NOISE, SHIFT
from jaxcnn.studies.repeatability import SEEDS
from jaxcnn.studies.study import Study

STUDIES: dict[str, Study] = {study.name: study for study in (SEEDS, SHIFT, NOISE)}
