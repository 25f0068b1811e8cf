"""The evaluation of a run: which images are shifted."""

from types import SimpleNamespace

import numpy as np

from jaxcnn.evaluation import evaluate, probes


def test_draw_shifts_images_of_all_classes(monkeypatch, tmp_path):
    labels = np.repeat([0, 1, 2], 1000)
    images = np.broadcast_to(labels.astype(np.uint8)[:, None, None, None], (3000, 30, 30, 1))
    seen = {}

    def shift_accuracies(predict, images, labels):
        seen.update(images=images, labels=labels)
        return [1.0]

    monkeypatch.setattr(probes, "feature_maps", lambda *_: {})
    monkeypatch.setattr(probes, "shift_accuracies", shift_accuracies)
    experiment = SimpleNamespace(
        preprocess=SimpleNamespace(evaluate=lambda images: images), predict_one_view=print
    )
    state = SimpleNamespace(eval_params={})
    found = evaluate.draw(experiment, state, images, labels, 0, "a", tmp_path)
    assert found == {"shift_accuracies": [1.0], "num_shifted_examples": 1000}
    assert all(280 < (seen["labels"] == label).sum() < 390 for label in range(3))
    np.testing.assert_array_equal(seen["images"][:, 0, 0, 0], seen["labels"])
