"""Export a trained network, or import PyTorch's weights."""

import dataclasses
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jaxcnn.cli import one_line_errors, placeholder, text_argument
from jaxcnn.data.transforms import Transform, from_text, to_text
from jaxcnn.errors import UserError, lookup
from jaxcnn.paths import local_path
from jaxcnn.presets import PRESETS
from jaxcnn.workdir.folder import read_config

TransformArgument = Annotated[
    Transform, text_argument(Transform, from_text, to_text, metavar="NAME[:FIELD=VALUE,...]")
]


def export(
    arguments: Annotated[tuple[str, ...], tyro.conf.Positional, placeholder("[RUN] FILE")] = (),
    pretrained: Annotated[str | None, placeholder("NAME")] = None,
    step: Annotated[int | Literal["best"] | None, placeholder("STEP|best")] = None,
    input: Annotated[
        Literal["uint8", "float32", "preprocessed"] | None,
        placeholder("uint8|float32|preprocessed"),
    ] = None,
    output: Annotated[
        Literal["log-probs", "probabilities"] | None, placeholder("log-probs|probabilities")
    ] = None,
    views: Annotated[Literal[1, 2, 5, 10] | None, placeholder("1|2|5|10")] = None,
    params: Annotated[Literal["inside", "beside"] | None, placeholder("inside|beside")] = None,
    data_dir: Annotated[str | None, placeholder("DIR")] = None,
    manual_dir: Annotated[str | None, placeholder("DIR")] = None,
) -> None:
    """Write a run's network to a file.

    The extension chooses the format: .onnx, .stablehlo, or PyTorch's weights in .safetensors, .pth,
    .pt, .ckpt or .bin. ONNX models and StableHLO programs contain the preprocessing.

    Args:
        arguments: folder that scripts/train.py wrote, unless --pretrained is set; then the file to
            write or replace.
        pretrained: name of weights that the package ships, instead of a run.
        step: step of the checkpoint, or best, the one of the best test accuracy; by default the
            latest.
        input: images that the exported network reads, [batch, height, width, channels]. uint8, the
            default, and float32 are pixels from 0 to 255; preprocessed are float32 images of the
            network's size, normalized as in the run.
        output: what it returns for each class, by default log-probs.
        views: views of each image to average over; by default as in the run.
        params: whether the parameters of a .stablehlo file are inside, the default, or in a
            .safetensors file beside it.
        data_dir: folder of prepared datasets; by default as in the run.
        manual_dir: folder of original files to prepare from; by default as in the run.
    """
    options: dict[str, Any] = {"input": input, "output": output, "views": views, "params": params}
    if len(arguments) != (1 if pretrained else 2):
        expected = "a file" if pretrained else "the folder of a run and a file"
        raise UserError(f"the arguments are {' '.join(map(repr, arguments))}; expected {expected}")
    source, file = pretrained or arguments[0], local_path(arguments[-1], "the file")
    if pretrained:
        if step is not None:
            raise UserError(f"`step` is {step}, but pretrained weights have one step; remove it")
        from jaxcnn.interop import exports  # late, because it imports jax
        from jaxcnn.interop.pretrained import cards, load_pretrained

        exports.export(load_pretrained(pretrained), file, cards()[pretrained], **options)
        print(f"Written: {file}, the network of {pretrained}")
        return
    run = local_path(source, "the run")
    read_config(run)  # a folder without a run is an error at once
    from jaxcnn.interop import runs  # late, because it imports jax

    step = runs.export_run(
        run, file, step=step, data_dir=data_dir, manual_dir=manual_dir, **options
    )
    print(f"Written: {file}, the network of {source} at step {step:,}")


def import_(
    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")],
    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")],
    preset: str = "lenet5-mnist",
    model: Annotated[str | None, placeholder("MODEL")] = None,
    dataset: Annotated[str | None, placeholder("DATASET")] = None,
    transforms: Annotated[tuple[TransformArgument, ...] | None, placeholder("NAME ...")] = None,
    pixel_mean: Annotated[tuple[float, ...] | None, placeholder("MEAN ...")] = None,
    pixel_std: Annotated[tuple[float, ...] | None, placeholder("STD ...")] = None,
    data_dir: Annotated[str | None, placeholder("DIR")] = None,
    manual_dir: Annotated[str | None, placeholder("DIR")] = None,
) -> None:
    """Make a run from PyTorch's weights, for evaluation or further training.

    To train the run further, give scripts/train.py the same preset and flags, and the folder as
    --workdir.

    Args:
        file: weights that end in .safetensors, .pth, .pt, .ckpt or .bin.
        run: folder of the new run.
        preset: preset of the new run.
        model: network of the new run: a lenet5 of the notebook's layout, or alexnet. By default
            this and the next four are the preset's.
        dataset: dataset of the new run.
        transforms: transforms of the new run, such as resize:size=224 for alexnet.
        pixel_mean: mean of pixels in [0, 1] that the new run subtracts.
        pixel_std: standard deviation of pixels that the new run divides by.
        data_dir: folder of prepared datasets; by default as in train.py.
        manual_dir: folder of original files to prepare from; by default as in train.py.
    """
    replaced: dict[str, Any] = {"model": model, "dataset": dataset, "transforms": transforms}
    replaced |= {"pixel_mean": pixel_mean, "pixel_std": pixel_std}
    given = {name: value for name, value in replaced.items() if value is not None}
    base = lookup("preset", preset, PRESETS)
    config = dataclasses.replace(base.config, **given, data_dir=data_dir, manual_dir=manual_dir)
    from jaxcnn.interop.runs import import_run  # late, because it imports jax
    from jaxcnn.interop.weight_files import EXTENSIONS, is_weight_file

    weights, folder = local_path(file, "the file"), local_path(run, "the run")
    if not is_weight_file(weights) or is_weight_file(folder):
        raise UserError(
            f"the arguments are {file!r} and {run!r}; expected weights in a file that ends in "
            f"{' or '.join(EXTENSIONS)}, and the folder of a new run"
        )
    import_run(weights, folder, base.name(config))
    print(f"Written: {run}, a run of step 0; python scripts/evaluate.py {run}")


def with_direction(arguments: list[str]) -> list[str]:
    """Return the arguments with `export` or `import` first.

    Without it, as in earlier versions, the file may be the first or the last argument: a file of
    weights in the first place is imported.
    """
    if not arguments or arguments[0] in ("export", "import", "-h", "--help"):
        return arguments
    positional = (
        argument
        for flag, argument in pairwise(["", *arguments])
        if not argument.startswith("-") and (not flag.startswith("--") or "=" in flag)
    )
    first = next(positional, "")
    pretrained = any(argument.split("=")[0] == "--pretrained" for argument in arguments)
    from jaxcnn.interop.weight_files import is_weight_file  # late, because it imports NumPy

    imports = is_weight_file(Path(first)) and not pretrained and not os.path.isdir(first)
    return ["import" if imports else "export", *arguments]


def main() -> None:
    """Run the command with the arguments of the process."""
    with one_line_errors():
        tyro.extras.subcommand_cli_from_dict(
            {"export": export, "import": import_},
            prog=sys.argv[0],
            description="Write a trained network to a file, or make a run from PyTorch's weights.",
            args=with_direction(sys.argv[1:]),
        )
