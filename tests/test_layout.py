"""The house: which packages may import which, computed from the imports and asserted.

    python tests/test_layout.py

prints the arrows between the packages.
"""

import ast
import collections
import pathlib

import pytest

import jaxcnn

ROOT = pathlib.Path(jaxcnn.__file__).parents[1]  # of the repository, or of an installed wheel

# Each line may import from itself and the lines below; within a package, from names to the right.
# A name that is not in a package's list may be imported by the package alone.
ROOMS = {
    "__main__": (),
    "commands": (
        *("completion", "study", "train", "evaluate", "predict", "demo", "summary", "compare"),
        *("runs", "convert", "benchmark", "usage"),
    ),
    "studies": (
        *("engine", "publish", "catalogue"),
        *("alexnet_layers", "regularization"),
        *("answers", "borders", "digits", "gradients", "invariance", "ladder", "learning", "relu"),
        *("repeatability", "cifar", "arms", "digits_figure", "neighbour_figure"),
        *("cost", "cost_figure", "cost_1998", "cost_numbers"),
        *("answer_measures", "crop_measures", "neighbour_measures", "digit_measures", "boosting"),
        *("gradient_measures", "image_measures", "measures"),
        *("publish", "calculation", "report", "summary", "statistics", "rates", "runs", "study"),
    ),
    "demo": ("page", "gallery", "describe"),
    "benchmarks": (),
    "evaluation": (
        *("evaluate", "seeds", "jobs_progress", "jobs", "compare", "runs", "drawings", "answers"),
        *("predict", "inputs", "digits", "diagrams", "pictures", "table", "probes", "metrics"),
    ),
    "interop": (
        *("initialize", "runs", "exports", "onnx", "onnx_networks", "onnx_graph", "stablehlo"),
        *("torch_weights", "weight_files", "pretrained", "trained"),
    ),
    "training": (
        *(
            "train",
            "progress",
            "debug_nans",
            "experiment",
            "resident",
            "streamed",
            "feed",
            "device_loops",
        ),
        *("step", "cores", "microbatch", "chunks", "signals", "validate", "report", "memory"),
    ),
    "optim": ("optimizers", "schedules", "curvature"),
    "workdir": (
        "listing",
        "dataset_info",
        "folder",
        "lock",
        "checkpoints",
        "stored_state",
        "metadata",
        "metrics_log",
    ),
    "presets": (),
    "config_checks": (),
    "config": (),
    "summary": ("figure", "table", "published", "summarize", "segments", "trace", "dependence"),
    "classifiers": ("linear", "nearest", "quadratic", "rbf", "least_squares"),
    "models": (
        *("variants", "alexnet", "cuda_convnet", "lenet", "lenet_early", "mlp", "lenet_1998"),
        *("initializers", "network", "checks"),
    ),
    "data": (
        *("splits", "open", "stream", "decode", "sources", "folders"),
        *("datasets", "tfds_builders"),
        *("tfds_originals", "originals"),
        *("preprocess", "augment", "geometry", "checks", "transforms"),
    ),
    "distributed": ("mesh", "processes", "compilation_cache"),
    "layers": (
        *(
            "convolution",
            "convolution_primitives",
            "gpu_convolution",
            "normalization",
            "subsampling",
            "pooling",
        ),
        *("windows", "xla_convolution", "cpu_convolution", "padding"),
    ),
    "report": (),
    "cli": (),
    "paths": (),
    "records": (),
    "errors": (),
    "files": (),
}


def arrows():
    """Return (importing module, imported module) for every import inside jaxcnn."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "jaxcnn").rglob("*.py")
    }
    found = set()
    for path in (ROOT / "jaxcnn").rglob("*.py"):
        importer = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxcnn"):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    found.add((importer, full if full in modules else node.module))
    return sorted(found)


def room(module):
    return (module.split(".") + [""])[1]


ARROWS = [(a, b) for a, b in arrows() if a != "jaxcnn"]  # whose public names come from all rooms


def points_down(importer, imported):
    order = list(ROOMS)
    above, below = room(importer), room(imported)
    if above == below and ROOMS[above]:
        names = [module.split(".")[2] for module in (importer, imported) if module.count(".") > 1]
        if len(names) == 2:
            return ROOMS[above].index(names[0]) <= ROOMS[above].index(names[1])
    return order.index(above) <= order.index(below)


@pytest.mark.parametrize("module", sorted({importer for importer, _ in ARROWS}))
def test_imports_point_down(module):
    assert not [b for a, b in ARROWS if a == module and not points_down(a, b)]


def test_every_module_has_its_place():
    for path in (ROOT / "jaxcnn").rglob("*.py"):
        *parts, name = path.relative_to(ROOT / "jaxcnn").with_suffix("").parts
        if parts and parts[0] not in ("benchmarks",) and name != "__init__":
            place = parts[1] if len(parts) > 1 else name
            assert place in ROOMS[parts[0]], path


def test_nothing_imports_the_benchmarks():
    above = ("benchmarks", "commands")
    assert not [a for a, b in ARROWS if room(b) == "benchmarks" and room(a) not in above]


def test_tyro_is_imported_by_the_command_line_alone():
    for path in (ROOT / "jaxcnn").rglob("*.py"):
        if path.name != "cli.py" and path.parent.name != "commands":
            assert "tyro" not in path.read_text().replace("tyro's", ""), path


if __name__ == "__main__":
    counts = collections.Counter((room(a), room(b)) for a, b in ARROWS if room(a) != room(b))
    for (above, below), number in sorted(counts.items()):
        print(f"{above:12} -> {below:12} {number}")
    print(f"{len(counts)} arrows between rooms, {len(ARROWS)} imports between modules")
