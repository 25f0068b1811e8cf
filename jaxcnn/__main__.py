"""The command line: jaxcnn train|evaluate|..., or python -m jaxcnn."""

import importlib
import sys

from jaxcnn.cli import one_line_errors
from jaxcnn.errors import lookup

COMMANDS = {
    "train": "train a network, evaluate it, and keep the run in one folder",
    "evaluate": "evaluate a run on the whole test set, in numbers and pictures",
    "predict": "classify images with a trained network",
    "demo": "write a page to draw a digit on and to look inside LeNet-5",
    "summary": "print a network layer by layer",
    "runs": "list runs: what differs, accuracy, steps done, time and state",
    "compare": "list runs, with means over seeds and curves in one picture",
    "convert": "export a network to ONNX, StableHLO or PyTorch; import weights",
    "benchmark": "measure speed compared with PyTorch and plain linen",
}


def main() -> None:
    """Run the command that the first argument names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    with one_line_errors():
        if name in ("-h", "--help"):
            print("usage: jaxcnn COMMAND [ARGUMENT ...]\n")
            for command, description in COMMANDS.items():
                print(f"  {command:12}{description}")
            print("\njaxcnn COMMAND --help describes the arguments of a command.")
            print("jaxcnn --completion bash (or zsh) prints a script for the shell.")
            return
        if name == "--completion":
            from jaxcnn.commands.completion import script  # late: it imports jax

            print(script(arguments[0] if arguments else "", COMMANDS), end="")
            return
        lookup("command", name, COMMANDS)
    sys.argv = [f"jaxcnn {name}", *arguments]
    importlib.import_module(f"jaxcnn.commands.{name}").main()


if __name__ == "__main__":
    main()
