"""List, run and compare studies."""

import dataclasses
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import tyro

from jaxcnn import records
from jaxcnn.cli import one_line_errors, placeholder
from jaxcnn.commands.train import parse_config
from jaxcnn.config import TrainConfig
from jaxcnn.errors import UserError, lookup
from jaxcnn.presets import PRESETS
from jaxcnn.studies.study import folder_of


@dataclasses.dataclass(frozen=True)
class Options:
    """Flags of a study."""

    seeds: Annotated[int | None, placeholder("N")] = None
    """Number of seeds, counted from 0; by default the study's own."""
    quick: bool = False
    """Try the study out: one seed, two epochs on a few images."""
    arms: Annotated[tuple[str, ...], placeholder("ARM ...")] = ()
    """Names of the arms to run; by default all."""
    jobs: Annotated[int | None, placeholder("N")] = None
    """Number of runs that train at a time; by default one to a core, and 1 on an accelerator."""
    plan: bool = False
    """Print the commands that train the missing runs, for a batch system, and run nothing."""
    publish: Annotated[Path | None, placeholder("DIR")] = None
    """Copy the page of the study, run before, into a folder of documentation, and list it there."""
    train: Annotated[int | None, placeholder("SEED")] = None
    """Train the arms with this seed only, and measure nothing: a line of --plan."""
    rate: Annotated[float | None, placeholder("X")] = None
    """With --train, try this learning rate on a validation split."""


USAGE = """\
usage: study.py [STUDY [--FLAG VALUE ...]]
       study.py compare PRESET --arm "FLAGS" --arm "FLAGS" [--FLAG VALUE ...]

Measure a claim over seeds. Without a study, list all. `compare` compares flags of train.py that you
choose."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Flags of a comparison."""

    arm: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Flags of train.py that make an arm, in quotes; the first arm is the baseline."""
    seeds: int = 5
    """Number of seeds, counted from 0."""
    quick: bool = False
    """Try the comparison out: one seed, two epochs on a few images."""
    jobs: Annotated[int | None, placeholder("N")] = None
    """Number of runs that train at a time; by default one to a core, and 1 on an accelerator."""


def main() -> None:
    """Run the command with the arguments of the process."""
    program, *arguments = sys.argv
    with one_line_errors():
        if not arguments or arguments[0] in ("-h", "--help"):
            _list_studies()
            if arguments:
                print(f"\n{USAGE}\n")
                tyro.cli(Options, prog=f"{program} STUDY", args=["--help"])  # exits
        elif arguments[0] == "compare":
            _compare(program, arguments[1:])
        else:
            _run(program, *arguments)


def _run(program: str, name: str, *arguments: str) -> None:
    from jaxcnn.studies import engine  # late, because it imports jax
    from jaxcnn.studies.catalogue import STUDIES
    from jaxcnn.studies.publish import publish

    study = lookup("study", name, STUDIES)
    options = tyro.cli(Options, prog=f"{program} {name}", args=list(arguments))
    seeds = None if options.seeds is None else _seeds(options.seeds)
    if options.rate is not None and options.train is None:
        raise UserError(f"`rate` is {options.rate}; it requires --train; remove it")
    if options.train is not None:
        engine.train(study, options.train, arms=options.arms, rate=options.rate)
    elif options.publish:
        publish(study, options.publish)
    elif options.plan:
        for arm, seed, rate in engine.plan(study, seeds, arms=options.arms):
            command = ["python", "scripts/study.py", name, "--arms", arm, "--train", str(seed)]
            print(shlex.join([*command, *(["--rate", f"{rate:g}"] if rate else [])]))
    else:
        engine.run_study(
            study,
            seeds=seeds,
            quick=options.quick,
            arms=options.arms,
            jobs=options.jobs,
            command=shlex.join(["python", "scripts/study.py", name, *arguments]),
        )


def _seeds(number: int) -> range:
    if not 1 <= number <= 1000:
        raise UserError(f"`seeds` is {number}; expected 1 to 1,000")
    return range(number)


def _compare(program: str, arguments: list[str]) -> None:
    is_named = bool(arguments) and not arguments[0].startswith("-")
    preset, *rest = arguments if is_named else ["PRESET", *arguments]
    joined: list[str] = []
    for word in rest:  # tyro takes a value that begins with a dash for a flag
        if joined and joined[-1] == "--arm":
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    options = tyro.cli(Comparison, prog=f"{program} compare {preset}", args=joined)
    if not is_named:
        raise UserError("compare needs a preset: study.py compare PRESET --arm FLAGS --arm FLAGS")
    arms = {}
    for text in options.arm:
        arms[text.strip() or preset] = _arm(program, preset, text)
    from jaxcnn.studies import engine  # late, because it imports jax

    engine.compare(
        arms,
        seeds=_seeds(options.seeds),
        quick=options.quick,
        jobs=options.jobs,
        command=shlex.join(["python", "scripts/study.py", "compare", *arguments]),
    )


def _arm(program: str, preset: str, text: str) -> TrainConfig:
    try:
        config = parse_config(program, preset, shlex.split(text))
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--arm is {text!r}: {error}; expected flags of train.py") from None
    for name in ("seed", "workdir"):
        if getattr(config, name) != getattr(PRESETS[preset].config, name):
            raise UserError(f"--arm is {text!r}, but the comparison chooses `{name}`; remove it")
    return config


def _list_studies() -> None:
    from jaxcnn.studies.catalogue import STUDIES  # late, because it imports NumPy

    width = min(shutil.get_terminal_size((100, 0)).columns, 100)
    for name, study in STUDIES.items():
        print(f"{name}: {study.size}")
        lines = [f"{study.claim} ({study.source})"]
        path = folder_of(name) / "study.json"
        if path.exists():
            try:
                arms = records.read(path)["arms"]
                lines.append("here: " + "; ".join(_result(arm, each) for arm, each in arms.items()))
            except records.MISFITS:
                lines.append(f"here: {path} is damaged; run the study again")
        for line in lines:
            print(textwrap.fill(line, width, initial_indent="    ", subsequent_indent="    "))


def _result(name: str, arm: dict[str, Any]) -> str:
    verdict = "" if arm["verdict"] == "no number printed" else f", {arm['verdict']}"
    return f"{name} {arm['mean']:.2f}{verdict}"
