"""Speed of jaxcnn compared with plain linen and PyTorch; `scripts/benchmark.py` runs these modules.

Each side of a comparison does the same work with the same network and random images in a separate
process (`worker`). The processes alternate (`compare`), so that other load on the machine affects
all of them equally.
"""
