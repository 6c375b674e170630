import keras
import numpy as np
import pytest
from scipy import stats

from kdtoolkit import analysis, data
from kdtoolkit._checks import ArgumentError


def test_features_are_what_is_classified():
    image = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(image)
    network = keras.Model(image, keras.layers.Dense(2)(keras.layers.Dropout(0.5)(pooled)))
    pixels = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    preprocessing = data.Preprocessing((4, 4, 3), [0.0] * 3, [1.0] * 3)
    split = data.Split(pixels, np.zeros(7, np.int32), preprocessing)
    found = analysis.pooled_features(network, split, batch_size=3)
    np.testing.assert_allclose(found, (pixels / 255).mean((1, 2)), rtol=1e-5)


def gaussians(random, count):
    labels = random.integers(0, 2, count)
    features = random.normal(size=(count, 5))
    features[:, 3] += np.where(labels, 1, -1)
    return features, labels


def test_probe_reaches_the_best_linear_accuracy():
    """Unit Gaussians at -1 and +1: the best classifier is right in the share Phi(1)."""
    random = np.random.default_rng(0)
    train, test = gaussians(random, 2000), gaussians(random, 20000)
    best = stats.norm.cdf(1)
    found = analysis.linear_probe(*train, *test)
    assert found == pytest.approx(best, abs=0.01)
    assert analysis.linear_probe(*train, *test) == found
    (x, y), (u, v) = train, test
    scaled = 100 * x + 7, y, 100 * u + 7, v
    assert analysis.linear_probe(*scaled) == pytest.approx(found, abs=1e-3)


def test_features_without_variance_and_range():
    random = np.random.default_rng(0)
    (x, y), (u, v) = gaussians(random, 500), gaussians(random, 500)
    x[:, 0] = u[:, 0] = 4
    assert analysis.linear_probe(x, y, u, v) > 0.8
    with pytest.raises(ArgumentError, match="positive"):
        analysis.linear_probe(x, y, u, v, c=0)
    with pytest.raises(ArgumentError, match="at least two classes"):
        analysis.linear_probe(x, 0 * y, u, v)
