"""Claims about the answers of trained networks: averages of several, and nearest images."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Literal

from jaxcnn.studies.answer_measures import NETWORKS, ensemble, views
from jaxcnn.studies.cifar import local
from jaxcnn.studies.measures import test_error
from jaxcnn.studies.neighbour_figure import save_neighbours
from jaxcnn.studies.neighbour_measures import neighbours
from jaxcnn.studies.study import Arm, Derived, Measured, Study, of_two

_PAPER = "Krizhevsky et al. 2012"


def _reduction(first: str, last: str) -> Callable[[Mapping[str, Measured]], float]:
    """Return the function from measurements to the relative reduction of the error, in percent."""
    return of_two(
        first,
        last,
        "test_error",
        lambda before, after: 100 * (1 - after / before) if before else math.nan,
    )


def _of_views(number: Literal[1, 2, 5, 10], name: str) -> Arm:
    return Arm(name, local(), expected=-1, measure=functools.partial(views, number=number))


VIEWS = Study(
    name="views",
    claim="The mean answer for ten views of a test image, its centre and corners and their mirror "
    "images, has a smaller error than the answer for its centre.",
    source=f"{_PAPER}, data augmentation, and the footnote on ten patches",
    arms=(
        Arm("1 view: centre", local()),
        _of_views(2, "2 views: and mirrored"),
        _of_views(5, "5 views: centre and corners"),
        _of_views(10, "10 views: and mirrored"),
    ),
    quantity="test_error",
    label="test error on CIFAR-10 (%)",
    measure=test_error,
    falsifier="The paired difference of ten views from one includes 0.",
    derived=(
        Derived(
            "reduction",
            "relative reduction of the error by ten views (%; on ImageNet 3.8 of the top-1 error "
            "and 7.1 of the top-5 error)",
            _reduction("1 view: centre", "10 views: and mirrored"),
        ),
    ),
    seconds=150,
    comment="All rows test the same networks, cuda-convnet's of 13 % error, which learn from "
    "random crops of 24x24 pixels and their mirror images for 6 epochs; the mean is that of the "
    "probabilities. "
    "On ImageNet, ten views lower the top-1 error from 39.0 to 37.5 % and the top-5 error from "
    "18.3 to 17.0 %. cuda-convnet's 13 % are measured with views, too.",
)


def _of_networks(number: int) -> Arm:
    return Arm(
        f"{number} networks",
        local(),
        expected=-1,
        measure=functools.partial(ensemble, number=number),
    )


ENSEMBLES = Study(
    name="ensembles",
    claim="The mean prediction of five networks that differ in their seeds has a smaller error "
    "than that of one.",
    source=f"{_PAPER}, results on the images of 2012",
    arms=(
        Arm("1 network", local()),
        *(_of_networks(number) for number in range(2, NETWORKS + 1)),
    ),
    quantity="test_error",
    label="test error on CIFAR-10 (%)",
    measure=test_error,
    falsifier="The paired difference of five networks from one includes 0.",
    derived=(
        Derived(
            "reduction",
            "relative reduction of the error by five networks (%; on ImageNet 6.4 of the top-1 "
            "error and 9.9 of the top-5 error)",
            _reduction("1 network", f"{NETWORKS} networks"),
        ),
    ),
    together=NETWORKS,
    seconds=150,
    comment="The value of a seed averages the probabilities of its network and of those of the "
    "seeds that follow, cyclically in groups of five. Values of different seeds therefore share "
    "networks, and of five networks there is one value for each group: the spread and the "
    "interval are those of the single networks and their partners, and not of independent "
    "ensembles. The networks are those of the study `views`, tested on the central crop. On "
    "ImageNet, five networks lower the top-1 error from 40.7 to 38.1 % and the top-5 error from "
    "18.2 to 16.4 %.",
)

NEIGHBOURS = Study(
    name="neighbours",
    claim="The training images nearest to a test image in the last hidden layer are of its class, "
    "though they are not near in pixels.",
    source=f"{_PAPER}, qualitative evaluations and figure 4",
    arms=(
        Arm("pixels", local()),
        Arm(
            "last hidden layer, initial values",
            local(),
            measure=functools.partial(neighbours, space="initial features"),
        ),
        Arm(
            "last hidden layer, trained",
            local(),
            expected=1,
            measure=functools.partial(neighbours, space="features"),
        ),
    ),
    quantity="share",
    label="of the 6 nearest training images, those of the test image's class (%)",
    measure=functools.partial(neighbours, space="pixels"),
    falsifier="The trained layer's neighbours are of the class no more often than those in pixels: "
    "the paired difference includes 0; or they are as near in pixels.",
    also={
        "vote_error": "error of the vote of the 6 (%)",
        "nearest_error": "error of the nearest one's class (%)",
        "pixel_distance": "distance in pixels (% of that of all pairs)",
    },
    seconds=200,
    figure=save_neighbours,
    comment="For each of the 10,000 test images, the 6 of the 50,000 training images at the "
    "smallest Euclidean distance, by the pixels of the central crop of 24x24, which are the same "
    "for every seed, or by the 1,152 units of local4, the last hidden layer of the networks of the "
    "study `views`. The distance in pixels is the root mean square over all neighbours. "
    "The paper shows five test images and prints no number.",
)
