"""The picture of nearest images: its grid by hand, and the file."""

import numpy as np
import pytest

from jaxcnn.studies import neighbour_figure
from jaxcnn.studies.neighbour_figure import WRONG, save_neighbours, sheet


def test_sheet_frames_the_images_that_are_wrong():
    images = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1, 1, 1) * np.ones((4, 5, 1), np.uint8)
    is_wrong = np.array([[False, True, False], [False, False, False]])
    grid = sheet(images, is_wrong)
    side = 2 * (neighbour_figure.GAP + neighbour_figure.FRAME)
    height, width = 4 + side, 5 + side
    assert grid.shape == (2 * height, 3 * width, 3)
    for row, column in np.ndindex(2, 3):
        tile = grid[row * height :, column * width :][:height, :width]
        assert (tile[3:-3, 3:-3] == 3 * row + column).all()
        red = (tile == WRONG).all(-1)
        assert red.sum() == (8 * 9 - 4 * 5 if is_wrong[row, column] else 0)
        assert (tile[[0, -1]] == 255).all() and (tile[:, [0, -1]] == 255).all()


@pytest.mark.slow
@pytest.mark.usefixtures("rows_as_mnist5k")
def test_save_neighbours_draws_the_first_image_of_each_class(run_of_rows, rows, monkeypatch):
    saved = []
    monkeypatch.setattr(neighbour_figure.report, "save_figure", lambda *args: saved.append(args))
    record = {"runs": {"pixels": [str(run_of_rows)]}, "quick": True, "seeds": [0]}
    save_neighbours(record, run_of_rows / "figure.png")
    [(figure, path)] = saved
    assert path == run_of_rows / "figure.png" and "a quick trial" in figure.get_suptitle()
    queries, pixels, features = (axes.images[0].get_array() for axes in figure.axes)
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == list("0123456789")
    first = rows.test_images[rows.test_labels == 1][0]
    assert (queries[37:65, 3:31] == first).all()  # the second row, within white and a frame
    assert pixels.shape == features.shape == (340, 204, 3)
    red = [(image == WRONG).all(-1).sum() for image in (queries, pixels, features)]
    assert red[0] == 0 and red[1] > red[2]  # fewer are of another class than in pixels
