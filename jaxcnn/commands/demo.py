"""Write a page on which a digit is drawn and every layer of a network is seen."""

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxcnn.cli import output_file, placeholder, run_command
from jaxcnn.errors import UserError


def demo(
    run: Annotated[str | None, tyro.conf.Positional, placeholder("[RUN]")] = None,
    pretrained: Annotated[str | None, placeholder("NAME")] = None,
    out: Path = Path("lenet5.html"),
    step: Annotated[int | Literal["best"] | None, placeholder("STEP|best")] = None,
    open: bool = True,
) -> None:
    """Write one HTML file with a trained LeNet-5 inside, and open it in the browser.

    The page needs no server, no connection and no Python: draw a digit, look at every layer, and
    click a unit for its arithmetic.

    Args:
        run: folder of a run of a network of LeNet's family; by default lenet5-mnist.
        pretrained: name of weights that the package ships, instead of a run.
        out: HTML file to write or replace.
        step: step of the run's checkpoint, or best; by default the latest.
        open: open the page in the browser, where there is a display.
    """
    if run is not None and pretrained is not None:
        raise UserError(f"the arguments are {run!r} and `pretrained`; expected one of them")
    if step is not None and run is None:
        raise UserError("`step` chooses a checkpoint of a run; name the run, or remove `step`")
    out = output_file("out", out)
    from jaxcnn.demo.page import build_page  # late: imports jax
    from jaxcnn.evaluation.predict import load
    from jaxcnn.files import write_atomically

    if run is None:
        pretrained = pretrained or "lenet5-mnist"
    page = build_page(load(run, pretrained=pretrained, step=step).trained)
    write_atomically(out, page)
    print(f"Written: {out}, {len(page.encode()) / 1000:.0f} kB; open it in any browser")
    if open and _has_display():
        webbrowser.open(out.resolve().as_uri())


def _has_display() -> bool:
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(demo)
