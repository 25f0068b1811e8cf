"""The intervals of pixels that units depend on."""

import numpy as np

from jaxcnn.summary.dependence import EMPTY, Interval, compose, identity


def interval(axis, first, last):
    return Interval(axis, np.array(first), np.array(last))


def assert_interval(actual, expected):
    assert actual.axis == expected.axis
    assert actual.first.tolist() == expected.first.tolist()
    assert actual.last.tolist() == expected.last.tolist()


SIX_PIXELS = (1, 6, 1)
CONV = interval(1, [0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 5, 5])
POOL = interval(1, [0, 1, 3], [2, 4, 5])


def test_compose_chains_the_layers_of_the_worked_example():
    batch, maps = interval(0, [0], [0]), interval(None, [0], [0])
    conv = (batch, CONV, maps)
    pool = (batch, interval(1, [0, 2, 4], [1, 3, 5]), interval(2, [0], [0]))
    assert_interval(compose(conv, pool)[1], POOL)
    assert_interval(compose(identity(SIX_PIXELS), conv)[1], CONV)


def test_interval_gather_ignores_padding():
    taps = np.array([[-1, 0], [0, 1], [-1, -1]])
    gathered = interval(1, [0, 3], [2, 5]).gather(1, taps)
    assert_interval(gathered, interval(1, [0, 0, EMPTY[0]], [2, 5, EMPTY[1]]))


def test_interval_gather_along_another_axis_changes_nothing():
    same = interval(2, [0, 3], [2, 5])
    assert same.gather(1, np.array([[0, 1]])) is same


def test_interval_rename_axes_merges_the_axes_that_are_not_kept():
    columns = interval(2, [0, 3], [2, 5])
    assert_interval(columns.rename_axes({2: 1}), interval(1, [0, 3], [2, 5]))
    assert_interval(columns.rename_axes({1: 1}), interval(None, [0], [5]))


def test_interval_union_is_taken_unit_by_unit():
    a, b = interval(1, [0, 3], [2, 5]), interval(1, [1, 1], [1, 6])
    assert_interval(a.union(b), interval(1, [0, 1], [2, 6]))


def test_interval_union_along_different_axes_is_the_same_for_all_units():
    a, b = interval(1, [0, 3], [2, 5]), interval(2, [1, 4], [1, 6])
    assert_interval(a.union(b), interval(None, [0], [6]))
