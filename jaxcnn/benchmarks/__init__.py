"""Our speed beside plain linen's and PyTorch's; `scripts/benchmark.py` runs these modules.

Each side of a comparison does the same work with the same network and random images in a process
of its own (`worker`). The processes alternate (`compare`), so that other load on the machine
affects all of them alike.
"""
