import pytest
from PIL import Image

from jaxcnn.models import IMAGE_SHAPES, MODELS
from jaxcnn.summary.figure import save_architecture
from jaxcnn.summary.summarize import summarize


@pytest.mark.parametrize("name", ["lenet5-1998", "alexnet-2012", "cuda-convnet-11pct"])
def test_save_architecture_writes_a_picture_and_nothing_else(name, tmp_path):
    path = tmp_path / "figure.png"
    save_architecture(name, summarize(MODELS[name](), IMAGE_SHAPES[name]), path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        assert 800 < width < 4000 and 400 < height < 1200
        assert 5 < len(picture.convert("RGB").getcolors(1 << 24))
    assert list(tmp_path.iterdir()) == [path]
