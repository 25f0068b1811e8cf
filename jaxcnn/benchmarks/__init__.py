"""Our speed beside that of plain linen and of PyTorch: what `scripts/benchmark.py` runs.

Each side of a comparison does the same work with the same network and random images in a process
of its own (`worker`), and the processes take turns (`compare`), so that what else the machine does
meets all of them alike.
"""
