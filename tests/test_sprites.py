"""Sprites: each factor does what it says and nothing else, the pictures are areas, and the named dataset keeps its factors."""

import zlib

import numpy as np
import pytest

from vaejax import data
from vaejax.report import config, job

ALL = ("square", "ellipse", "heart", "triangle")


@pytest.fixture(scope="module")
def dataset():
    return data.load("sprites")


@pytest.fixture(scope="module")
def large():
    """Few sprites of many pixels, for measuring."""
    return data.sprites(size=128, shapes=ALL, num_scales=3, num_orientations=3, num_x=3, num_y=2)


def centre(images):
    """Where the white is, ``[n, 2]``: row and column in widths."""
    weight = images / images.sum(axis=(1, 2), keepdims=True, dtype=float)
    places = (np.arange(images.shape[1]) + 0.5) / images.shape[1]
    return np.stack([weight.sum(2) @ places, weight.sum(1) @ places], axis=1)


def test_the_grid_is_whole_and_in_order(large):
    sizes = (4, 3, 3, 3, 2)
    assert large.factor_sizes == sizes
    assert large.factor_names == ("shape", "scale", "orientation", "x", "y")
    assert (large.images.shape, large.images.dtype, large.levels) == ((216, 128, 128), np.uint8, 255)
    np.testing.assert_array_equal(large.factors, np.indices(sizes).reshape(5, -1).T)
    assert large.factors.dtype == np.int32
    assert large.shapes == ALL


def test_areas_are_those_of_the_shapes(large):
    """Square and ellipse (semiaxes 1 and 1/2) in a circle of radius r, the triangle too, to within subpixels."""
    area = large.images.sum(axis=(1, 2), dtype=float) / 255 / 128**2
    radius = np.array([1 / 8, 3 / 16, 1 / 4])[large.factors[:, 1]]
    for kind, wanted in ((0, 2.0), (1, np.pi / 2), (3, 0.75 * 3**0.5)):
        mine = large.factors[:, 0] == kind
        np.testing.assert_allclose(area[mine], wanted * radius[mine] ** 2, rtol=0.015)
    heart = (area / radius**2)[large.factors[:, 0] == 2]
    assert np.ptp(heart) < 0.01 * heart.mean()


def test_position_moves_and_orientation_turns(large):
    kind, scale, turn, x, y = large.factors.T
    places = centre(large.images)
    straight = kind != 2  # the heart's centre of mass is not that of its circle
    np.testing.assert_allclose(places[straight, 0], np.array([0.25, 0.75])[y[straight]], atol=2e-3)
    np.testing.assert_allclose(places[straight, 1], np.array([0.25, 0.5, 0.75])[x[straight]], atol=2e-3)
    # The long axis of the ellipse, from its second moments; rows count downwards.
    for angle in range(3):
        image = large.images[(kind == 1) & (scale == 2) & (turn == angle) & (x == 1) & (y == 0)][0] / 255
        rows, columns = (np.indices((128, 128)) + 0.5) / 128 - np.array([0.25, 0.5])[:, None, None]
        across, up, mixed = ((image * product).sum() for product in (columns**2, rows**2, -columns * rows))
        found = np.degrees(0.5 * np.arctan2(2 * mixed, across - up))
        assert found == pytest.approx(30.0 * angle, abs=0.5)


def test_nothing_is_cut_off(large):
    """The area does not depend on the place, at the edges either."""
    moved = large.images.sum(axis=(1, 2), dtype=float).reshape(36, 6)
    np.testing.assert_allclose(moved, moved.mean(axis=1, keepdims=True).repeat(6, 1), rtol=2e-3)


def test_each_picture_has_one_set_of_factors():
    drawn = data.sprites(shapes=ALL)
    assert len(np.unique(drawn.images.reshape(len(drawn.images), -1), axis=0)) == len(drawn.images) == 4 * 4 * 6 * 8 * 8


def test_binary_is_half_covered_or_not():
    grey, binary = (data.sprites(size=16, num_orientations=2, num_x=2, num_y=2, binary=flag) for flag in (False, True))
    np.testing.assert_array_equal(binary.images, grey.images >= 128)
    assert (binary.images.dtype, binary.levels) == (np.uint8, 1)


def test_a_random_choice_is_part_of_the_grid():
    sizes = {"size": 12, "num_orientations": 2, "num_x": 3, "num_y": 3}
    whole, some, other = (data.sprites(**sizes, **extra) for extra in ({}, {"count": 50}, {"count": 50, "seed": 1}))
    rows = np.ravel_multi_index(some.factors.T, some.factor_sizes)
    np.testing.assert_array_equal(some.images, whole.images[rows])
    assert len(set(rows.tolist())) == 50
    assert (some.factors != other.factors).any()
    again = data.sprites(**sizes, count=50)
    np.testing.assert_array_equal(again.images, some.images)


def test_single_classes_are_in_the_middle():
    one = data.sprites(size=64, shapes="square", num_scales=1, num_orientations=1, num_x=1, num_y=1)
    assert one.factor_sizes == (1, 1, 1, 1, 1)
    np.testing.assert_allclose(centre(one.images), 0.5, atol=1e-3)
    np.testing.assert_allclose(one.images.sum() / 255 / 64**2, 2 * (3 / 16) ** 2, rtol=0.02)


def test_the_named_dataset(dataset):
    """Its parts are the grid, once; factors and labels belong to their images, and are as they were when this was written."""
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    assert [len(part.x) for part in parts.values()] == [3226, 460, 922]
    grid = data.sprites()
    rows = []
    for name, part in parts.items():
        rows.append(np.ravel_multi_index(dataset.factors[name].T, grid.factor_sizes))
        np.testing.assert_array_equal(part.x, grid.images[rows[-1]])
        np.testing.assert_array_equal(dataset.labels[name], dataset.factors[name][:, 0])
    assert sorted(np.concatenate(rows).tolist()) == list(range(4608))
    assert dataset.factor_names == grid.factor_names
    assert dataset.label_names == grid.shapes == ("square", "ellipse", "heart")
    assert (dataset.levels, dataset.name) == (255, "sprites")
    # At random over the grid: no value of a factor is rare in any part.
    for name, values in dataset.factors.items():
        for factor, size in zip(values.T, grid.factor_sizes):
            share = np.bincount(factor, minlength=size) / len(factor)
            assert (np.abs(share - 1 / size) < 5 * np.sqrt(1 / size / len(factor))).all(), name
    assert zlib.crc32(np.concatenate(rows).astype("<i4").tobytes()) == 1766552781
    assert zlib.crc32(grid.images.tobytes()) == 763989825


def test_other_datasets_have_no_factors():
    digits = data.load("digits")
    assert digits.factors is None
    assert digits.factor_names is None


def test_sprites_are_listed_described_and_not_fetched(dataset):
    row = next(row for row in data.catalogue("/nowhere") if row.name == "sprites")
    assert (row.found, row.path, row.fetchable) == (True, None, False)
    summary = data.describe(dataset)
    assert (summary.kind, summary.classes, summary.event_shape) == ("counts", 3, (32, 32))
    with pytest.raises(ValueError, match="cannot be fetched: it is drawn when it is loaded"):
        data.fetch("sprites")


def test_settings_for_sprites_make_a_run():
    planned = job.plan(job.with_name(config.preset("sprites"), "sprites"))
    assert planned.facts.likelihood == "bernoulli"
    assert planned.config.data.data_dir is None
    assert planned.facts.label_names == ("square", "ellipse", "heart")
    assert planned.steps_per_epoch == 64
    batch = job.prepared(planned.config, planned.facts, planned.dataset, "test")
    assert set(np.unique(batch.x)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("options", "error", "wanted"),
    [
        ({"size": 4}, ValueError, "size must be at least 8 pixels, got 4"),
        ({"size": 32.0}, TypeError, "size must be an integer"),
        ({"shapes": ("circle",)}, ValueError, "unknown shape 'circle'"),
        ({"shapes": ("heart", "heart")}, ValueError, "each shape once"),
        ({"shapes": ()}, ValueError, "each shape once"),
        ({"num_x": 0}, ValueError, "num_x must be at least 1"),
        ({"count": 5000}, ValueError, "count=5000 is more than the 4608 images"),
        ({"count": 0}, ValueError, "count must be at least 1"),
        ({"count": 5, "seed": -1}, ValueError, "seed= must be at least 0"),
    ],
)
def test_bad_options_are_refused(options, error, wanted):
    with pytest.raises(error, match=wanted):
        data.sprites(**options)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="drawn when they are loaded; leave directory out"):
        data.load("sprites", tmp_path)
    with pytest.raises(ValueError, match="seed= is for files of your own"):
        data.load("sprites", seed=1)
