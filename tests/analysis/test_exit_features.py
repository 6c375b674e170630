import keras
import numpy as np
import pytest

from kdtoolkit import analysis, data
from kdtoolkit._checks import ArgumentError


def test_components_of_known_axes():
    """Coordinates along two axes of six are found again, whatever rotation hides them."""
    random = np.random.default_rng(0)
    first, second = random.normal(0, 3, 200), random.normal(0, 1, 200)
    second -= second @ first / (first @ first) * first  # uncorrelated, and of mean 0
    first, second = first - first.mean(), second - second.mean()
    second -= second @ first / (first @ first) * first
    axes = np.linalg.qr(random.normal(size=(6, 6)))[0][:2]
    found = analysis.principal_components(np.stack([first, second], 1) @ axes + 7)
    for column, (axis, known) in enumerate(zip(axes, (first, second), strict=True)):
        sign = np.sign(axis[np.abs(axis).argmax()])
        np.testing.assert_allclose(found.points[:, column], sign * known, atol=1e-9)
    total = first @ first + second @ second
    np.testing.assert_allclose(found.variance, [first @ first / total, second @ second / total])


@pytest.mark.parametrize("features", [np.ones((5, 3)), np.ones(4), np.zeros((4, 1))])
def test_no_components(features):
    with pytest.raises(ArgumentError, match="`features`"):
        analysis.principal_components(features)


def test_scatter_by_hand():
    features, labels = np.array([[0.0], [2], [10], [12], [14]]), np.array([5, 5, 7, 7, 7])
    within = 1 + 1 + 4 + 0 + 4
    mean = 38 / 5
    between = 2 * (1 - mean) ** 2 + 3 * (12 - mean) ** 2
    assert analysis.scatter_ratio(features, labels) == pytest.approx(within / between, rel=1e-12)
    with pytest.raises(ArgumentError, match="classes whose features differ"):
        analysis.scatter_ratio(np.array([[1.0], [3], [2], [2]]), np.array([0, 0, 1, 1]))


def test_scatter_of_gaussians():
    """Means at +m and -m on one of d axes, deviation s: d s^2 / m^2, up to the draw."""
    random, labels = np.random.default_rng(1), np.repeat([0, 1], 4000)
    features = random.normal(0, 0.5, (8000, 4))
    features[:, 2] += np.where(labels, 1.5, -1.5)
    assert analysis.scatter_ratio(features, labels) == pytest.approx(4 * 0.25 / 2.25, rel=0.03)


def test_features_of_exits():
    """What each classifier multiplies, of images that the network takes as they are given."""
    image = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D(name="exit_1_features")(image)
    deep = keras.layers.GlobalMaxPooling2D()(image)
    outputs = {
        "exit_1": keras.layers.Dense(2, name="exit_1_logits")(pooled),
        "exit_2": keras.layers.Dense(2)(deep),
    }
    pixels = np.random.default_rng(2).integers(0, 256, (7, 4, 4, 3), np.uint8)
    preprocessing = data.Preprocessing((4, 4, 3), [0.4] * 3, [0.2] * 3)
    split = data.Split(pixels, np.zeros(7, np.int32), preprocessing)
    found = analysis.features_by_exit(keras.Model(image, outputs), split, batch_size=3)
    x = (pixels / 255 - 0.4) / 0.2
    assert list(found) == ["exit_1", "exit_2"]
    np.testing.assert_allclose(found["exit_1"], x.mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["exit_2"], x.max((1, 2)), rtol=1e-4)
