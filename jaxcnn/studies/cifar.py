"""Configs of the studies on CIFAR-10."""

from jaxcnn.config import OptimizerConfig, TrainConfig
from jaxcnn.data.transforms import HorizontalFlip, RandomCrop
from jaxcnn.presets import CIFAR10_STD
from jaxcnn.studies.arms import config

CROPS = (RandomCrop(24), HorizontalFlip())
EPOCHS = 6


def local(**fields: object) -> TrainConfig:
    """Return the config of cuda-convnet's network of 13 % error, tested on the central crop.

    The initial values are by fan-in, for pixels of variance 1, with which few epochs suffice; the
    rate is that which the study `relu` chooses for this network.

    Args:
      fields: fields of `TrainConfig` that differ.
    """
    base = {
        "model": "cuda-convnet-13pct:initial=lecun-uniform",
        "transforms": CROPS,
        "pixel_std": CIFAR10_STD,
        "optimizer": OptimizerConfig(
            name="sgd-2012", learning_rate=2e-2, bias_rate=2.0, schedule="cosine"
        ),
        "epochs": EPOCHS,
        "eval_every_epochs": EPOCHS,
        "eval_views": 1,
    }
    return config("cuda-convnet-11pct-cifar10", **{**base, **fields})
