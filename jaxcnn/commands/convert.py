"""Convert weights from and to PyTorch."""

import dataclasses
from typing import Annotated, Any, Literal

import tyro

from jaxcnn.cli import placeholder, run_command, text_argument
from jaxcnn.data.transforms import Transform, from_text, to_text
from jaxcnn.errors import UserError, lookup
from jaxcnn.paths import local_path
from jaxcnn.presets import PRESETS
from jaxcnn.workdir.folder import read_config

TransformArgument = Annotated[
    Transform, text_argument(Transform, from_text, to_text, metavar="NAME[:FIELD=VALUE,...]")
]


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN-OR-FILE")],
    target: Annotated[
        str | None, tyro.conf.Positional, tyro.conf.arg(metavar="FILE-OR-RUN")
    ] = None,
    pretrained: Annotated[str | None, placeholder("NAME")] = None,
    step: Annotated[int | Literal["best"] | None, placeholder("STEP|best")] = None,
    preset: Annotated[str | None, placeholder("PRESET")] = None,
    model: Annotated[str | None, placeholder("MODEL")] = None,
    dataset: Annotated[str | None, placeholder("DATASET")] = None,
    transforms: Annotated[tuple[TransformArgument, ...] | None, placeholder("NAME ...")] = None,
    pixel_mean: Annotated[tuple[float, ...] | None, placeholder("MEAN ...")] = None,
    pixel_std: Annotated[tuple[float, ...] | None, placeholder("STD ...")] = None,
    data_dir: Annotated[str | None, placeholder("DIR")] = None,
    manual_dir: Annotated[str | None, placeholder("DIR")] = None,
) -> None:
    """Export a run's parameters as PyTorch weights, or make a run from such weights.

    The file is the argument that ends in .safetensors, .pth, .pt, .ckpt or .bin; with --pretrained
    it is the only argument. To train a new run further,
    give scripts/train.py the same preset and flags, and the folder as --workdir.

    Args:
        source: folder that scripts/train.py wrote; or the file.
        target: file to write or replace; or folder of the new run.
        pretrained: name of weights that the package ships, to export instead of a run.
        step: step of the exported checkpoint, or best, the one of the best test accuracy; by
            default the latest.
        preset: preset of the new run; by default lenet5-mnist.
        model: network of the new run: a lenet5 of the notebook's layout, or alexnet. By default
            this and the next four are the preset's.
        dataset: dataset of the new run.
        transforms: transforms of the new run, such as resize:size=224 for alexnet.
        pixel_mean: mean of pixels in [0, 1] that the new run subtracts.
        pixel_std: standard deviation of pixels that the new run divides by.
        data_dir: folder of prepared datasets; by default as in train.py.
        manual_dir: folder of original files to prepare from; by default as in train.py.
    """
    if pretrained:
        _export_pretrained(pretrained, source, target)
        return
    if target is None:
        raise UserError(f"the argument is {source!r}; expected a run and a file")
    from jaxcnn.interop.weight_files import EXTENSIONS, is_weight_file

    paths = local_path(source, "the source"), local_path(target, "the target")
    from_file, to_file = (is_weight_file(path) and not path.is_dir() for path in paths)
    if from_file == to_file:
        raise UserError(
            f"the arguments are {source!r} and {target!r}; expected the folder of a run "
            f"and a file that ends in {' or '.join(EXTENSIONS)}, in either order"
        )
    replaced: dict[str, Any] = {"model": model, "dataset": dataset, "transforms": transforms}
    replaced |= {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    given = {name: value for name, value in replaced.items() if value is not None}
    if from_file and step is not None:
        raise UserError(f"`step` chooses a checkpoint, and {source} is a file; remove `step`")
    if to_file and (unused := [*given, *(["preset"] if preset else [])]):
        names = ", ".join(f"`{name}`" for name in unused)
        raise UserError(f"{source} is a run with a config of its own; remove {names}")
    base = lookup("preset", preset or "lenet5-mnist", PRESETS)
    config = dataclasses.replace(base.config, **given, data_dir=data_dir, manual_dir=manual_dir)

    if to_file:
        read_config(paths[0])
    from jaxcnn.interop.runs import export_run, import_run  # late, because they import jax

    if to_file:
        step = export_run(*paths, step=step, data_dir=data_dir, manual_dir=manual_dir)
        print(f"Written: {target}, the parameters of {source} at step {step:,}")
    else:
        import_run(*paths, base.name(config))
        print(f"Written: {target}, a run of step 0; python scripts/evaluate.py {target}")


def _export_pretrained(name: str, file: str, surplus: str | None) -> None:
    if surplus is not None:
        raise UserError(f"the arguments are {file!r} and {surplus!r}; expected one file")
    from jaxcnn.interop.pretrained import load_pretrained  # late, because they import jax
    from jaxcnn.interop.runs import export

    export(load_pretrained(name), local_path(file, "the target"))
    print(f"Written: {file}, the parameters of {name}")


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(convert)
