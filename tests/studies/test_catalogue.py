"""Every study names its sources, and every arm can be trained."""

import pytest

from jaxcnn.studies.catalogue import STUDIES
from jaxcnn.training.validate import validated


@pytest.mark.parametrize("name", STUDIES)
def test_studies_are_complete(name):
    study = STUDIES[name]
    assert study.name == name and name != "compare" and study.num_seeds >= 5
    for text in (study.claim, study.source, study.label, study.falsifier):
        assert len(text.split()) > 1
    names = [arm.name for arm in study.arms]
    assert len({*names}) == len(names) and study.arms[0].expected == 0
    for arm in study.arms:
        validated(arm.config)
        assert arm.config.workdir is None and arm.config.seed == 0
        if arm.published:
            assert len(arm.published.source.split()) > 3
    for curve in study.curves:
        assert {*curve.marks} <= {*curve.x}
