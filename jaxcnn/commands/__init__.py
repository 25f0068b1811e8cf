"""The commands: parse, call, print. `scripts/*.py` and `python -m jaxcnn` run their `main`."""
