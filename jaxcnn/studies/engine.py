"""Run a study: train what is missing, measure each run, sum up, and write the report."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from jaxcnn import config as configs
from jaxcnn import records, report
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError, lookup
from jaxcnn.files import write_atomically
from jaxcnn.studies import measures, rates
from jaxcnn.studies.calculation import Calculation, calculate
from jaxcnn.studies.catalogue import STUDIES
from jaxcnn.studies.report import print_summary, save_figure, to_markdown, write_result
from jaxcnn.studies.runs import find_or_train, missing_runs, trained
from jaxcnn.studies.study import Arm, Measured, Study, folder_of
from jaxcnn.studies.summary import summarize
from jaxcnn.workdir import folder as workdirs

AnyStudy = TypeVar("AnyStudy", Study, Calculation)


def run_study(
    study: str | Study | Calculation,
    *,
    seeds: Sequence[int] | None = None,
    quick: bool = False,
    arms: Sequence[str] = (),
    jobs: int | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run a study, print its result, and write it to `runs/studies/NAME/`.

    Finished runs in `runs/` with the same config are used, whoever trained them; the others are
    trained there. An interrupted study continues when the call is repeated.

    Args:
      study: a study, or its name in STUDIES.
      seeds: the seeds; by default 0 up to the study's own number.
      quick: train one seed for two epochs on a few images, to try the study out.
      arms: names of the arms to run; by default all.
      jobs: number of runs that train at a time; see `train_jobs`.
      command: command for the report.

    Returns:
      The content of `study.json`.

    Raises:
      UserError: there is no such study or arm, or a config is refused.
      RunError: a run failed or was stopped by a signal.
    """
    study = lookup("study", study, STUDIES) if isinstance(study, str) else study
    command = command or f"python scripts/study.py {study.name}"
    if isinstance(study, Calculation):
        return calculate(_chosen(study, arms), quick=quick, command=command)
    seeds = list(seeds) if seeds else list(range(1 if quick else study.num_seeds))
    study = _chosen(study, arms)
    if quick:
        study = _quick(study)
    study, tried = rates.choose(study, jobs)
    folder = folder_of(study.name, quick=quick)
    folder.mkdir(parents=True, exist_ok=True)
    runs = find_or_train(study, study.seeds_to_train(seeds), jobs)
    measured = _measure(study, seeds, runs, folder / "measured.json")
    num_examples = {}
    for arm in study.arms:
        path, numbers = runs.get((arm.name, seeds[0])), measured[arm.name, seeds[0]]
        source: Any = workdirs.read_result(path) if path else numbers
        num_examples[arm.name] = int(source["num_test_examples"])
    summary = summarize(study, seeds, measured, num_examples)
    record = {
        "study": study.name,
        "quick": quick,
        "command": command,
        "device": _device(),
        "versions": {name: metadata.version(name) for name in ("jax", "flax", "jaxcnn")},
        "runs": {arm.name: [str(runs[arm.name, seed]) for seed in seeds] for arm in trained(study)},
        "rates": tried,
        **summary,
    }
    page = to_markdown(study, record)
    draw = study.figure or functools.partial(save_figure, study)
    write_result(folder, record, page, functools.partial(draw, record))
    print_summary(study, record)
    report.say(f"Written: {folder}")
    return record


def compare(
    arms: dict[str, TrainConfig],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    quick: bool = False,
    jobs: int | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Compare the test errors of configs over seeds, paired by seed; see `run_study`.

    Args:
      arms: name -> config; the first is the baseline.
      seeds: the seeds.
      quick: see `run_study`.
      jobs: see `run_study`.
      command: command for the report.
    """
    if not seeds:
        raise UserError("`seeds` is empty; expected at least one seed")
    if len(arms) < 2:
        raise UserError(f"there is {len(arms)} arm; expected at least two to compare")
    study = Study(
        name="compare",
        claim="The arms differ in test error.",
        source="your question",
        arms=tuple(Arm(name, config) for name, config in arms.items()),
        quantity="test_error",
        label="test error (%)",
        measure=measures.test_error,
        falsifier="The interval of the paired difference includes 0.",
    )
    return run_study(
        study, seeds=seeds[:1] if quick else seeds, quick=quick, jobs=jobs, command=command
    )


def train(
    study: Study | Calculation,
    seed: int,
    *,
    arms: Sequence[str] = (),
    rate: float | None = None,
) -> None:
    """Train the arms of a study with one seed, as a job of a batch system, and measure nothing.

    Args:
      study: the study.
      seed: the seed.
      arms: names of the arms; by default all.
      rate: learning rate to try on the validation split, instead of the one that was chosen.
    """
    if isinstance(study, Calculation):
        raise UserError(f"{study.name} has nothing to train; run it without `train`")
    study = _chosen(study, arms)
    if rate is None:
        find_or_train(rates.choose(study)[0], [seed])
    else:
        find_or_train(rates.trials(_with_rate(study, rate)), [seed])


def plan(
    study: Study | Calculation, seeds: Sequence[int] | None = None, *, arms: Sequence[str] = ()
) -> list[tuple[str, int, float | None]]:
    """Return arm, seed and rate of the runs that `train` has to train, those of a rate first.

    Rates are chosen when all of them have been tried; before, the plan has the trials only.

    Args:
      study: the study.
      seeds: the seeds; by default 0 up to the study's own number.
      arms: names of the arms; by default all.
    """
    if isinstance(study, Calculation):
        return []
    seeds = range(study.num_seeds) if seeds is None else seeds
    study = _chosen(study, arms)
    different = {(arm.config, study.rates_of(arm)): arm for arm in study.arms}.values()
    missing: list[tuple[str, int, float | None]] = [
        (arm.name, 0, rate)
        for arm in different
        for rate in study.rates_of(arm)
        if missing_runs(
            rates.trials(_with_rate(dataclasses.replace(study, arms=(arm,)), rate)), [0]
        )
    ]
    return missing or [
        (arm.name, seed, None)
        for arm, seed in missing_runs(rates.choose(study)[0], study.seeds_to_train(seeds))
    ]


def _chosen(study: AnyStudy, names: Sequence[str]) -> AnyStudy:
    by_name = {arm.name: arm for arm in study.arms}
    chosen = [lookup(f"arm of {study.name}", name, by_name) for name in names] or study.arms
    if isinstance(study, Study) and len(chosen) < len(study.arms):
        study = dataclasses.replace(study, derived=())  # computed from all arms
    return dataclasses.replace(study, arms=tuple(chosen))


def _with_rate(study: Study, rate: float) -> Study:
    """Return the study with a single rate to try in each arm that has a choice."""
    arms = (dataclasses.replace(arm, rates=(rate,)) for arm in study.arms if study.rates_of(arm))
    return dataclasses.replace(study, arms=tuple(arms))


def _quick(study: Study) -> Study:
    arms = []
    for arm in study.arms:
        config = dataclasses.replace(arm.config, preset="custom", epochs=2)
        some = config.train_examples
        if config.dataset == "mnist":
            some = some and max(config.batch_size, some // 15)  # 4,000 of 60,000 images are left
            config = dataclasses.replace(config, dataset="mnist5k", train_examples=some)
        elif config.dataset == "cifar10":
            config = dataclasses.replace(config, train_examples=4000)
        arms.append(
            dataclasses.replace(arm, config=config, published=None, rates=(), also_published={})
        )
    return dataclasses.replace(study, arms=tuple(arms), rates=())


def _measure(
    study: Study, seeds: Sequence[int], runs: dict[tuple[str, int], Path], cache: Path
) -> dict[tuple[str, int], Measured]:
    """Measure each arm with each seed once; the results are kept in a file from call to call.

    A run is measured again when its result, or the module that defines the measure, has changed,
    or when its entry in the file is damaged.
    """
    measured, kept = {}, dict[str, Any]()
    try:
        kept = records.read(cache)
    except FileNotFoundError:
        pass
    except UserError as error:
        report.say(f"{cache} is damaged: {error}; all runs are measured again")
    for arm in study.arms:
        function: Callable[..., Measured] = arm.fit or arm.measure or study.measure
        version = _version(function)
        for seed in seeds:
            name, source, result = _subject(arm, seed, runs)
            entry: Any = kept.get(name)
            key = {"result": result, "measure": version}
            if not _is_sound(entry, key):
                report.say(f"measuring {name}")
                entry = {**key, "measured": dict(function(source))}
                entry = records.sealed(records.plain(entry))
                kept[name] = entry
                write_atomically(cache, json.dumps(kept) + "\n")
            measured[arm.name, seed] = entry["measured"]
    return measured


def _subject(
    arm: Arm, seed: int, runs: dict[tuple[str, int], Path]
) -> tuple[str, Path | TrainConfig, str]:
    """Return the key of an arm and a seed in the file, what is measured, and a text of its state.

    What is measured is the folder of a run, or the config that `Arm.fit` fits. If the text has
    changed, it is measured again.
    """
    if arm.fit:
        config = dataclasses.replace(arm.config, seed=seed)
        return f"{arm.name}, seed {seed}", config, configs.to_json(config)
    path = runs[arm.name, seed]
    name = f"{arm.name}: {path}" if arm.measure else str(path)
    return name, path, (path / "result.json").read_text()


def _is_sound(entry: Any, key: dict[str, str]) -> bool:
    """Return whether an entry of the file of measurements is whole, and made under a key."""
    if not isinstance(entry, dict) or not isinstance(entry.get("measured"), dict):
        return False
    try:
        records.check_seal(entry)
    except UserError:
        return False
    return all(entry.get(name) == value for name, value in key.items())


def _version(measure: Callable[[Path], Measured]) -> str:
    """Return name and arguments of a measure, and a digest of the source of its module."""
    function, arguments = measure, ""
    if isinstance(measure, functools.partial):
        function, arguments = measure.func, f"{measure.args} {measure.keywords}"
    try:
        source = inspect.getsource(sys.modules[function.__module__])
    except (OSError, TypeError):  # defined at a prompt, where a name may change its meaning
        source = secrets.token_hex()
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    return f"{function.__module__}.{function.__qualname__}{arguments} {digest}"


def _device() -> str:
    import jax  # late: training processes may need the accelerator that jax would take

    devices = jax.devices()
    kind, cores = devices[0].device_kind, os.cpu_count()
    name = report.device_name(kind)
    return f"{cores} cores of an {name}" if kind == "cpu" else f"{len(devices)} x {name}"
