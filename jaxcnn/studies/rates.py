"""Choose a learning rate for each arm of a study, by the same rule, on a validation split."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxcnn.studies.runs import find_or_train
from jaxcnn.studies.study import Study
from jaxcnn.workdir import folder as workdirs

VAL_FRACTION = 1 / 12  # 5,000 of MNIST's 60,000 training images, 4,167 of CIFAR-10's 50,000


def choose(study: Study, at_a_time: int | None = None) -> tuple[Study, dict[str, Any]]:
    """Return the study with the best of its rates in each arm, and the errors of all rates.

    Every rate is tried once in every arm that is trained, with seed 0 and a part of the training
    set held out. The rate with the smallest error on this part is chosen; of several, the smallest
    rate.

    Args:
      study: the study; without `rates`, it is returned as it is.
      at_a_time: number of runs that train at a time; see `train_jobs`.

    Returns:
      The study, and arm -> `{"chosen": rate, "val_error": {rate: percent}}`.
    """
    if not trials(study).arms:
        return study, {}
    runs = find_or_train(trials(study), [0], at_a_time)
    arms, tried = [], {}
    for arm in study.arms:
        rates = study.rates_of(arm)
        if not rates:
            arms.append(arm)
            continue
        errors = {}
        for rate in rates:
            result = workdirs.read_result(runs[_name(arm.name, rate), 0])
            assert result is not None
            errors[rate] = 100 * (1 - result["val_accuracy"])
        best = min(rates, key=lambda rate: (errors[rate], rate))
        optimizer = dataclasses.replace(arm.config.optimizer, learning_rate=best)
        config = dataclasses.replace(arm.config, optimizer=optimizer)
        arms.append(dataclasses.replace(arm, config=config))
        tried[arm.name] = {"chosen": best, "val_error": {f"{r:g}": errors[r] for r in rates}}
    return dataclasses.replace(study, arms=tuple(arms)), tried


def trials(study: Study) -> Study:
    """Return the runs that try the rates, as a study of its own."""
    arms = []
    for arm in study.arms:
        for rate in study.rates_of(arm):
            config = dataclasses.replace(
                arm.config,
                optimizer=dataclasses.replace(arm.config.optimizer, learning_rate=rate),
                epochs=study.trial_epochs or arm.config.epochs,
                val_fraction=VAL_FRACTION,
            )
            name = _name(arm.name, rate)
            arms.append(dataclasses.replace(arm, name=name, config=config, rates=()))
    return dataclasses.replace(study, name=f"{study.name}, rates", arms=tuple(arms), rates=())


def _name(arm: str, rate: float) -> str:
    return f"{arm}, rate {rate:g}"
