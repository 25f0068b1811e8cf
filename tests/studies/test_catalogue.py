"""Every study names its sources, and every arm can be trained or computed."""

import pytest

from jaxcnn.studies.calculation import Calculation
from jaxcnn.studies.catalogue import STUDIES
from jaxcnn.training.validate import validated


@pytest.mark.parametrize("name", STUDIES)
def test_studies_are_complete(name):
    study = STUDIES[name]
    assert study.name == name and name != "compare"
    names = [arm.name for arm in study.arms]
    assert len({*names}) == len(names)
    texts = [study.claim, study.source]
    if isinstance(study, Calculation):
        texts += [
            study.caption,
            *(text for arm in study.arms for text in (arm.claim, arm.falsifier)),
        ]
    else:
        texts += [study.label, study.falsifier]
    assert all(len(text.split()) > 1 for text in texts)


@pytest.mark.parametrize("name", STUDIES)
def test_arms_can_be_trained_or_computed(name):
    study = STUDIES[name]
    if isinstance(study, Calculation):
        return  # tests/studies/test_cost.py computes them
    assert study.num_seeds >= 3 and study.arms[0].expected == 0
    for arm in study.arms:
        validated(arm.config)
        assert arm.config.workdir is None and arm.config.seed == 0
        if arm.published:
            assert len(arm.published.source.split()) > 3
    for curve in study.curves:
        assert {*curve.marks} <= {*curve.x}
