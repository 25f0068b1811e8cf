"""Growth over sizes: the largest jump between neighbours, and the picture."""

import pytest

from jaxcnn.benchmarks.growth import cliffs, save_growth


def growth(varied, steps):
    """Return results of `compare` for sizes -> ms of a step; each batch size is its images."""
    fixed = {"batch_size": 1, "image_size": None, "images_per_step": 1, "network": "lenet5"}
    fixed |= {"what": "train", "dtype": "float32", "device": "a processor"}
    return [
        fixed
        | {varied: size, "images_per_step": size if varied == "batch_size" else 1}
        | {"figures": {"jaxcnn": {"step_ms": step, "peak_mib": 100.0 + size}}}
        for size, step in steps.items()
    ]


@pytest.mark.parametrize(
    ("varied", "steps", "line"),
    [
        (
            "batch_size",
            {8: 8, 16: 12, 32: 20},
            "an image: 0.83x, from 16 to 32; no cliff above 1.3x.",
        ),
        ("batch_size", {8: 8, 16: 12, 32: 60}, "an image: 2.50x, from 16 to 32; 1 above 1.3x."),
        ("image_size", {10: 100, 20: 600}, "a pixel: 1.50x, from 10 to 20; 1 above 1.3x."),
    ],
)
def test_cliffs_compare_neighbours(varied, steps, line):
    assert cliffs(growth(varied, steps)[::-1]) == f"Largest jump of the time of {line}"


def test_save_growth_draws_time_and_memory(tmp_path):
    picture = tmp_path / "growth.png"
    save_growth(growth("batch_size", {2**power: 2.0**power for power in range(13)}), picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
