"""Convert weights from and to PyTorch: python scripts/convert.py RUN FILE, or FILE RUN."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcnn.cli import one_line_errors, text_argument
from jaxcnn.config import TrainConfig
from jaxcnn.data.transforms import Transform, from_text, to_text
from jaxcnn.errors import UserError, flag, lookup
from jaxcnn.presets import PRESETS, Preset

TransformArgument = text_argument(Transform, from_text, to_text, metavar="NAME[:FIELD=VALUE,...]")


def main(
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN-OR-FILE")],
    target: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE-OR-RUN")],
    step: int | Literal["best"] | None = None,
    preset: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    transforms: tuple[TransformArgument, ...] | None = None,
    pixel_mean: tuple[float, ...] | None = None,
    pixel_std: tuple[float, ...] | None = None,
    data_dir: str | None = None,
    manual_dir: str | None = None,
) -> None:
    """Write a run's parameters to a file of PyTorch's weights, or make a run of such a file.

    The file is the one of the two with the extension .safetensors, .pth or .pt. A run made of it is
    trained on by scripts/train.py with the same preset and flags, and the run as its --workdir;
    the preset is lenet5-mnist where none was given.

    Args:
        source: the folder that scripts/train.py wrote; or the file.
        target: the file to write or replace; or the folder of the new run.
        step: of a run, which checkpoint, or best; by default the latest.
        preset: of a file, what the run is of; by default as in lenet5-mnist.
        model: of a file, in the preset's place: a lenet5 of the notebook's layout, or alexnet.
        dataset: likewise, a name in DATASETS.
        transforms: likewise, what images go through, such as resize:size=224 for alexnet.
        pixel_mean: likewise, subtracted from pixels in [0, 1].
        pixel_std: likewise, divides what is left.
        data_dir: where prepared datasets are.
        manual_dir: files the dataset is prepared from instead of a download.
    """
    from jaxcnn.interop.weight_files import EXTENSIONS, is_weight_file

    from_file, to_file = (is_weight_file(p) and not p.is_dir() for p in (source, target))
    if from_file == to_file:
        raise UserError(
            f"one of {source} and {target} must be a run's folder, and the other a file "
            f"ending in {', '.join(EXTENSIONS)}"
        )
    about = {"preset": preset, "model": model, "dataset": dataset, "transforms": transforms}
    about |= {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    given = {name: value for name, value in about.items() if value is not None}
    if from_file and step is not None:
        raise UserError(f"--step is of a run's checkpoint, and {source} is a file of weights")
    if to_file and given:
        raise UserError(f"{source} has its own config: leave {', '.join(map(flag, given))} away")
    base = lookup("preset", preset, PRESETS) if preset else Preset("", TrainConfig())
    config = dataclasses.replace(base.config, **given, data_dir=data_dir, manual_dir=manual_dir)

    from jaxcnn.interop.runs import export_run, import_run  # after the parsing: they take jax along

    if to_file:
        step = export_run(source, target, step=step, data_dir=data_dir, manual_dir=manual_dir)
        print(f"Written: {target}, the parameters of {source} at step {step:,}")
    else:
        import_run(source, target, base.name(config))
        print(f"Written: {target}, a run of step 0; python scripts/evaluate.py {target}")


if __name__ == "__main__":
    with one_line_errors():
        tyro.cli(main)
