"""Configs of the studies on CIFAR-10."""

from jaxcnn.config import TrainConfig
from jaxcnn.data.transforms import HorizontalFlip, RandomCrop
from jaxcnn.studies.arms import config

CROPS = (RandomCrop(24), HorizontalFlip())
EPOCHS = 30


def local(**fields: object) -> TrainConfig:
    """Return the config of cuda-convnet's network of 13 % error, tested on the central crop.

    Args:
      fields: fields of `TrainConfig` that differ.
    """
    base = {"model": "cuda-convnet-13pct", "transforms": CROPS, "epochs": EPOCHS, "eval_views": 1}
    return config("cuda-convnet-11pct-cifar10", **{**base, **fields})
