"""What a run is: a frozen `TrainConfig`, the bounds of its fields, its JSON.

A config says everything that decides a run's numbers, and where the run lives. It is written beside
the checkpoints as `config.json`, and a folder refuses a run whose config is another one.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from typing import Annotated, Any, Literal, get_args, get_origin

from jaxcnn import records
from jaxcnn.data import transforms
from jaxcnn.data.transforms import SIDE, Transform
from jaxcnn.errors import UserError
from jaxcnn.records import Bound


@dataclasses.dataclass(frozen=True)
class OnlyWith:
    """The update rules that read a field; with any other rule it must keep its default."""

    rules: tuple[str, ...]


COUNT = Bound(lambda value: 1 <= value < 2**31, "in [1, 2^31)")
FRACTION = Bound(lambda value: 0 <= value < 1, "in [0, 1)")
PROBABILITY = Bound(lambda value: 0 <= value <= 1, "in [0, 1]")
POSITIVE = Bound(lambda value: 0 < value < math.inf, "positive and finite")
NOT_NEGATIVE = Bound(lambda value: 0 <= value < math.inf, "finite and not negative")
MEAN = Bound(lambda value: abs(value) <= 1e6, "in [-1e6, 1e6]")
STD = Bound(lambda value: 1e-6 <= value <= 1e6, "in [1e-6, 1e6]")
SEED = Bound(lambda value: 0 <= value < 2**32, "in [0, 2^32)")

COUNT_OR_NONE = Bound(lambda value: value is None or 1 <= value < 2**31, "in [1, 2^31)")
INDEX_OR_NONE = Bound(lambda value: value is None or 0 <= value < 2**31, "in [0, 2^31)")
ADDRESS_OR_NONE = Bound(
    lambda value: value is None or bool(re.fullmatch(r"\S+:[0-9]{1,5}", value)), "HOST:PORT"
)
GREY_OR_COLOR = Bound(lambda value: value in (None, 1, 3), "1 or 3")
POSITIVE_OR_NONE = Bound(lambda value: value is None or 0 < value < math.inf, "positive and finite")

WITH_DECAY = OnlyWith(("adamw", "sgd", "sgd-2012"))

# Format of config.json, and the fields that each format added. A file of an earlier format takes
# their defaults; any other missing field is an error. Raise FORMAT to add a field or to allow more
# values. Formats below FIRST_RECORDED did not record their number.
FORMAT, FIRST_RECORDED = 14, 6
ADDED: dict[int, tuple[str, ...]] = {
    2: (
        *("transforms", "optimizer.schedule", "optimizer.warmup_epochs", "optimizer.rate_steps"),
        "optimizer.mu",
    ),
    3: (
        *("stream_size", "stream_min_size", "on_bad_image", "label_smoothing", "ema_decay"),
        *("dtype", "eval_views", "optimizer.bias_rate", "optimizer.nesterov"),
        *("optimizer.weight_decay", "optimizer.decay_biases", "optimizer.clip_norm"),
        "optimizer.accumulate",
    ),
    4: ("optimizer.layer_decays",),
    5: ("hold_out", "channels", "max_value"),
    7: ("class_weights",),
    8: ("init_from", "init_only", "new_head", "freeze", "optimizer.layer_rates"),
    9: ("continued_from",),
    10: ("val_fraction", "patience"),
    11: ("on_nonfinite",),
    12: ("train_examples", "eval_training"),
    13: ("label_noise",),
}

# Fields that may change from one start of a run to the next without changing its numbers.
FREE = "free"
# Fields of one start of a run, such as its devices and processes; not written to config.json.
LAUNCH = "launch"

# The first sentence of a field's docstring is its line in `train.py --help`.


class _ShortRepr:
    """Base of config classes: `repr` shows the fields that differ from their defaults."""

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={value!r}"
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
            if (value := getattr(self, field.name)) != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True, repr=False)
class OptimizerConfig(_ShortRepr):
    """The update rule and its learning rate."""

    name: Literal["adam", "adamw", "sgd", "sgd-2012", "diagonal-lm"] = "adam"
    """Update rule. Adam (Kingma and Ba 2015); Adam with decoupled weight decay (Loshchilov and
    Hutter 2019); gradient descent with momentum, in PyTorch's form or in that of Krizhevsky et al.
    2012; the stochastic diagonal Levenberg-Marquardt method (LeCun et al. 1998), for networks with
    a target code."""
    learning_rate: Annotated[float, POSITIVE] = 1e-3
    """Largest learning rate of the schedule."""
    bias_rate: Annotated[float, POSITIVE] = 1.0
    """Factor on the learning rate of biases. It applies to parameters called `bias`; cuda-convnet
    uses 2."""
    layer_rates: tuple[tuple[str, Annotated[float, POSITIVE]], ...] = ()
    """Factor on the learning rate of single layers. Pairs of a layer, such as fc8, and its
    factor."""
    schedule: Literal["constant", "steps", "cosine", "linear"] = "constant"
    """Rate schedule. `steps` follows rate_steps; `cosine` and `linear` decay to 0 at the end of the
    run."""
    warmup_epochs: Annotated[float, NOT_NEGATIVE] = 0.0
    """Epochs of linear warm-up from 0. They precede the schedule."""
    rate_steps: tuple[tuple[Annotated[float, NOT_NEGATIVE], Annotated[float, POSITIVE]], ...] = ()
    """Fraction of the rate from an epoch on. Pairs of an epoch and the fraction of learning_rate;
    for the schedule `steps`."""
    momentum: Annotated[float, FRACTION, OnlyWith(("sgd", "sgd-2012"))] = 0.9
    """Decay of the velocity. In [0, 1)."""
    nesterov: Annotated[bool, OnlyWith(("sgd",))] = False
    """Nesterov momentum. Nesterov 1983, in PyTorch's form."""
    weight_decay: Annotated[float, NOT_NEGATIVE, WITH_DECAY] = 0.0
    """Weight decay. `sgd` and `sgd-2012` add it, times the parameter, to the gradient; `adamw`
    subtracts it, times the parameter and the learning rate, as in PyTorch."""
    layer_decays: Annotated[tuple[tuple[str, Annotated[float, NOT_NEGATIVE]], ...], WITH_DECAY] = ()
    """Decay of single layers. Pairs of a layer, such as conv1, and the decay that replaces
    weight_decay in it."""
    decay_biases: Annotated[bool, WITH_DECAY] = False
    """Decay all parameters. Otherwise biases and parameters of fewer than two dimensions do not
    decay."""
    clip_norm: Annotated[float, NOT_NEGATIVE] = 0.0
    """Largest norm of the gradients; 0 is no limit. Gradients of a larger global norm are scaled
    down before anything else."""
    accumulate: Annotated[int, COUNT] = 1
    """Batches averaged for one update. An incomplete group at the end of the run is not used."""
    mu: Annotated[float, POSITIVE, OnlyWith(("diagonal-lm",))] = 0.02
    """Constant added to the curvature. A parameter's step is divided by the sum."""


@dataclasses.dataclass(frozen=True, repr=False)
class TrainConfig(_ShortRepr):
    """A run: what is trained, on what, how long, and where it is kept."""

    preset: Annotated[str, FREE] = "custom"
    """Name of the experiment in reports."""

    # Network and data
    model: str = "lenet5"
    """Name of the network; an unknown name lists all. A key of MODELS, such as lenet5, or one with
    other fields, such as lenet5:activation=relu,pool=max."""
    dataset: str = "mnist"
    """mnist5k, mnist, cifar10, ..., folder:DIR, tfds:NAME. An unknown name lists all. `folder:DIR`
    reads images from DIR/train/CLASS/ and DIR/val/CLASS/ or DIR/test/CLASS/, `tfds:NAME` a prepared
    dataset of TFDS; these two are streamed and may be larger than memory."""
    stream_size: Annotated[int, SIDE] = 256
    """Height and width of streamed images, in pixels. The shorter side is scaled to it, and the
    square at the centre is kept."""
    stream_min_size: Annotated[int, SIDE] = 32
    """Least shorter side of a streamed image. In pixels; a smaller image is bad."""
    channels: Annotated[int | None, GREY_OR_COLOR] = None
    """1 (grey) or 3 (color) for streamed images. By default 3 for a folder, and as stored by
    TFDS."""
    max_value: Annotated[float | None, POSITIVE_OR_NONE] = None
    """Largest value of 9- to 32-bit pixels. Of streamed images, by default as each file says; 4095
    for 12-bit data in 16-bit files."""
    hold_out: Annotated[float, FRACTION] = 0.0
    """Fraction of a folder's images to test on. For DIR/train/CLASS/ or DIR/CLASS/ without a folder
    of test images; a hash of the file name decides."""
    val_fraction: Annotated[float, FRACTION] = 0.0
    """Fraction of the training images to validate on. Drawn by the seed, after hold_out, in
    proportion to the classes (of tfds:NAME, whose labels are stored with the images, regardless of
    them). Evaluations in training then use these images, and the test set is used once, at the end,
    with the checkpoint that is best on them."""
    train_examples: Annotated[int | None, COUNT_OR_NONE] = None
    """Number of images to train on. By default all. A subset drawn by the seed, after val_fraction,
    in proportion to the classes as there; with the same seed, a smaller subset is a part of a
    larger one."""
    label_noise: Annotated[float, PROBABILITY] = 0.0
    """Probability that a training label is random. In [0, 1]; random labels are drawn once, by the
    seed, uniformly from all classes, so that some are right (Zhang et al. 2017). Images to validate
    and test on keep their labels. Not for streamed datasets."""
    on_bad_image: Annotated[Literal["refuse", "skip"], FREE] = "refuse"
    """Policy for bad streamed images. An image is bad if it is too small or cannot be decoded.
    `refuse` aborts the run; `skip` replaces the image in training and leaves it out in
    evaluation."""
    transforms: tuple[Transform, ...] = ()
    """resize, crop, center-crop, flip, affine, deslant, invert, pca-color, cutout. Applied in the
    order given, before the pixels are normalized; `crop:size=24,padding=4` sets fields."""
    pixel_mean: tuple[Annotated[float, MEAN], ...] = (0.5,)
    """Mean of pixels in [0, 1]; is subtracted. One value, or one for each channel."""
    pixel_std: tuple[Annotated[float, STD], ...] = (0.5,)
    """Standard deviation of pixels; divides them. One value, or one for each channel; a mean and a
    deviation of 0.5 bring pixels to [-1, 1]."""

    # Start
    init_from: str | None = None
    """Trained network to start from. The folder of a run, a file of PyTorch's weights, or the name
    of pretrained weights. A last layer for another number of classes starts from random
    parameters."""
    init_only: tuple[str, ...] = ()
    """Layers to take from it. By default all; the others start from random parameters."""
    new_head: bool = False
    """Start the last layer from random parameters. That of init_from is not used, even if it
    fits."""
    freeze: tuple[str, ...] = ()
    """Layers that never change. They keep their initial parameters to the bit."""

    # Optimization
    optimizer: OptimizerConfig = OptimizerConfig()
    """The update rule and its learning rate."""
    batch_size: Annotated[int, COUNT] = 64
    """Images in a training step. The images of an epoch that do not fill a batch are not used in
    it."""
    epochs: Annotated[int, COUNT] = 10
    """Passes over the training set."""
    continued_from: Annotated[tuple[Annotated[int, COUNT], ...], FREE] = ()
    """Epochs of the run before it was made longer, as by `train.py --continue`."""
    label_smoothing: Annotated[float, FRACTION] = 0.0
    """Fraction of a label spread over all classes. In [0, 1), in training only (Szegedy et al.
    2016); evaluation reports the cross-entropy of the labels themselves."""
    class_weights: Literal["none", "balanced", "sampled"] = "none"
    """Weights against classes of different sizes. `balanced` multiplies the training loss of an
    example by the mean size of a class, divided by the size of its class; `sampled` draws the
    images of an epoch with these weights, with replacement; evaluation does not use weights."""
    ema_decay: Annotated[float, FRACTION] = 0.0
    """Decay of averaged parameters; 0 is no average. In [0, 1); smaller in the first steps. The
    exponential moving average is evaluated instead of the parameters."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the computation. Parameters, loss and metrics stay float32."""
    on_nonfinite: Annotated[Literal["stop", "skip"], FREE] = "stop"
    """Policy for NaN and infinity. `stop` aborts the run; `skip` leaves the parameters, their
    average and the optimizer as they were before such a step, and counts it."""
    seed: Annotated[int, SEED] = 0
    """Seed of every random choice. It decides the initial parameters, the order of each epoch,
    augmentation, dropout, the validation split, the subset of train_examples and label_noise."""

    # Evaluation, logs and checkpoints
    log_every_steps: Annotated[int, COUNT] = 100
    """Steps between log lines. Training metrics are means over these steps, or over those since the
    last evaluation."""
    eval_every_epochs: Annotated[int, COUNT] = 1
    """Epochs between evaluations. Each uses the whole test set, or the validation split, and saves
    a checkpoint; the last step is always evaluated."""
    eval_training: bool = False
    """Also evaluate the images that are trained on. Each evaluation then repeats the training loss
    and accuracy with fixed parameters and without augmentation or dropout; those of the log are
    means over steps between which the parameters change."""
    patience: Annotated[int | None, COUNT_OR_NONE] = None
    """Evaluations without a better one before the run stops. Better is a higher validation accuracy
    than all earlier ones; requires val_fraction. The learning-rate schedule is not shortened."""
    eval_batch_size: Annotated[int, COUNT, FREE] = 1000
    """Images in an evaluation step. Every view counts as an image; does not change the result."""
    eval_views: Literal[1, 2, 5, 10] = 1
    """Views averaged for a test image. 1 is the central crop; 2 adds its mirror image; 5 is the
    centre and the four corners; 10 is these and their mirror images."""
    checkpoint_every_steps: Annotated[int | None, COUNT_OR_NONE, FREE] = None
    """Steps between checkpoints. By default one is saved each minute. Evaluations save one, too."""

    # Devices and processes
    multihost: Annotated[bool, LAUNCH] = False
    """Join the other processes of the run. They are found by the settings of a TPU slice, SLURM or
    Kubernetes, or by the next three fields. Under SLURM's `srun` and on a TPU slice of GKE,
    processes join without it."""
    coordinator: Annotated[str | None, ADDRESS_OR_NONE, LAUNCH] = None
    """Address of process 0."""
    num_processes: Annotated[int | None, COUNT_OR_NONE, LAUNCH] = None
    """Number of processes."""
    process_id: Annotated[int | None, INDEX_OR_NONE, LAUNCH] = None
    """Index of this process, from 0."""
    model_axis: Annotated[int, COUNT, LAUNCH] = 1
    """Devices that split AlexNet's dense layers. Each holds a part of fc6 and fc7."""

    # Debugging
    debug_nans: Annotated[bool, LAUNCH] = False
    """Name the layer of the first NaN. Resumes from the last checkpoint and trains step by step,
    which is slower and ends in the same bits."""

    # Places
    workdir: Annotated[str | None, FREE] = None
    """Folder of the run. By default runs/<preset>-seed<seed>; fields that differ from the preset
    are part of the name, as in runs/lenet5-mnist-epochs=3-seed0."""
    data_dir: Annotated[str | None, FREE] = None
    """Folder of prepared datasets. By default $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    manual_dir: Annotated[str | None, FREE] = None
    """Folder of original files, to prepare from. They replace the download."""
    compilation_cache: Annotated[bool, FREE] = True
    """Keep compiled programs. The next run reads them from a folder private to the user."""


def differences(config: TrainConfig, other: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Return the fields that make two runs different: dotted name -> (value, other's value).

    Folders of images may have moved: `workdir.dataset_info` compares their contents. A run that is
    continued is the same run as before.
    """
    ours, theirs = _flat(config), _flat(other)
    free = marked(TrainConfig, FREE)
    if other.epochs in config.continued_from:
        free.add("epochs")
    if all(fields["dataset"].startswith("folder:") for fields in (ours, theirs)):
        free.add("dataset")
    return {
        name: (ours[name], theirs[name])
        for name in ours
        if name not in free and ours[name] != theirs[name]
    }


def describe_differences(config: TrainConfig, other: TrainConfig) -> str:
    """Return the fields that make two runs different as text for a message; "" if none does."""
    return ", ".join(
        f"{name} is {theirs!r} there and {ours!r} here"
        for name, (ours, theirs) in differences(config, other).items()
    )


def marked(cls: type, mark: str) -> set[str]:
    """Return the names of the fields of a config class that bear a mark."""
    return {name for name, (_, *marks) in field_types(cls).items() if mark in marks}


def dataset_options(config: TrainConfig) -> dict[str, Any]:
    """Return the keyword arguments of `data.open.open_dataset` for a config."""
    return {
        "data_dir": config.data_dir,
        "manual_dir": config.manual_dir,
        "size": config.stream_size,
        "min_size": config.stream_min_size,
        "on_bad_image": config.on_bad_image,
        "channels": config.channels,
        "max_value": config.max_value,
        "hold_out": config.hold_out,
    }


def with_whole_paths(config: TrainConfig) -> TrainConfig:
    """Return the config with absolute paths of images and of initial weights, as a run keeps it."""

    def whole(path: str) -> str:
        return os.path.abspath(os.path.expanduser(path))

    if config.dataset.startswith("folder:"):
        folder = whole(config.dataset.removeprefix("folder:"))
        config = dataclasses.replace(config, dataset=f"folder:{folder}")
    if config.init_from is not None and os.path.exists(os.path.expanduser(config.init_from)):
        config = dataclasses.replace(config, init_from=whole(config.init_from))
    return config


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Return the config as JSON types, without its launch fields; `from_dict` reads it.

    Raises:
      TypeError: a field has a value that JSON cannot hold.
    """
    fields = {"format": FORMAT, **dataclasses.asdict(config)}
    for name in marked(TrainConfig, LAUNCH):
        del fields[name]
    fields["transforms"] = [transforms.to_text(transform) for transform in config.transforms]
    return records.plain(fields)


def to_json(config: TrainConfig) -> str:
    """Return the text of config.json; `from_json` reads it."""
    return records.dumps(to_dict(config))


def from_json(text: str | bytes) -> TrainConfig:
    """Return the config that `to_json` wrote, in this version or an earlier one.

    Raises:
      UserError: the text is not such a config; the message names the field.
    """
    return from_dict(records.parse(text))


def from_dict(record: dict[str, Any]) -> TrainConfig:
    """Return the config that `to_dict` returned, in this version or an earlier one.

    Raises:
      UserError: a field is missing, unknown, of another type or out of its bounds, or the record
        differs from the one that was sealed.
    """
    fields = records.unsealed(record)
    fields.pop("card", None)  # earlier versions kept the preset's card with the run
    version = _format(fields)
    texts = records.convert(fields.get("transforms", []), list[str], "transforms")
    if "transforms" in fields:
        fields["transforms"] = []  # a union of dataclasses, with a parser of its own
    added_later = {name for number, names in ADDED.items() if number > version for name in names}
    config: TrainConfig = records.convert(
        fields, TrainConfig, optional=added_later | marked(TrainConfig, LAUNCH)
    )
    config = dataclasses.replace(config, transforms=tuple(map(transforms.from_text, texts)))
    records.check_seal(record)
    return config


def _format(fields: dict[str, Any]) -> int:
    """Remove and return the format of a config's fields; infer it where none was recorded."""
    if "format" not in fields:
        optimizer = records.convert(fields.get("optimizer"), dict[str, Any], "optimizer")
        names = {*fields, *(f"optimizer.{name}" for name in optimizer)}
        return max([1, *(number for number, added in ADDED.items() if names.intersection(added))])
    version = records.convert(fields.pop("format"), int, "format")
    if not FIRST_RECORDED <= version <= FORMAT:
        raise UserError(f"format is {version}; expected at most {FORMAT}; update jaxcnn")
    return version


def field_types(cls: type) -> dict[str, tuple[Any, ...]]:
    """Return the type of each field, followed by its marks."""
    return {
        name: (get_args(hint) if get_origin(hint) is Annotated else (hint,))
        for name, hint in records.type_hints(cls).items()
    }


def _flat(config: TrainConfig) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in to_dict(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": v for inner, v in value.items()}
        else:
            flat[name] = value
    return flat
