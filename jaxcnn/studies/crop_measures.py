"""What studies measure of networks that see a crop of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jaxcnn.studies.image_measures import dataset_of
from jaxcnn.studies.measures import test_error
from jaxcnn.studies.study import Measured
from jaxcnn.workdir import folder as workdirs

SHIFTS = (1, 2, 3, 4)
TRAINING_IMAGES, SHIFTED_IMAGES = 10_000, 2_000


def crops(run: Path) -> Measured:
    """Return how a run answers to crops beside the centre, and to training images.

    Args:
      run: folder of a run whose network sees crops of 24x24 pixels of images of 32x32.

    Returns:
      `test_error`, in percent; `training_error`, in percent, of the central crops of the first
      10,000 training images; `gap`, their difference in points; `consistency`, the percentage of
      the first 2,000 test images that have the same answer after a shift of the crop by each of
      SHIFTS (mean over up, down, left and right); `consistency_2`, that of 2 pixels.
    """
    from jaxcnn.evaluation.predict import load  # late, because it imports jax

    data, classifier = dataset_of(workdirs.read_config(run)), load(run)

    def answer(images: np.ndarray, down: int = 0, right: int = 0) -> np.ndarray:
        # The classifier takes the central crop, which the roll moves; 4 pixels are around it.
        moved = np.roll(images, (-down, -right), (1, 2))
        return classifier.log_probs_of_one_view(moved).argmax(-1)

    training_images = data.train_images[:TRAINING_IMAGES]
    wrong = answer(training_images) != data.train_labels[:TRAINING_IMAGES]
    training_error = 100 * float(np.mean(wrong))
    images = data.test_images[:SHIFTED_IMAGES]
    unmoved = answer(images)
    consistency = []
    for pixels in SHIFTS:
        moves = ((pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels))
        same = [answer(images, *move) == unmoved for move in moves]
        consistency.append(round(100 * float(np.mean(same)), 4))
    error = test_error(run)
    return {
        **error,
        "training_error": training_error,
        "gap": float(error["test_error"]) - training_error,  # type: ignore[arg-type]
        "consistency": consistency,
        "consistency_2": consistency[SHIFTS.index(2)],
    }
