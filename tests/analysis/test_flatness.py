"""Noise on the weights of a linear network, whose accuracy and loss under it are known."""

import keras
import numpy as np
import pytest
from scipy import stats

from kdtoolkit import analysis
from kdtoolkit._checks import ArgumentError


def linear(kernel, bias=None):
    image = keras.Input((1, len(kernel), 1))
    layer = keras.layers.Dense(kernel.shape[1], use_bias=bias is not None)
    network = keras.Model(image, layer(keras.layers.Flatten()(image)))
    network.set_weights([kernel] if bias is None else [kernel, bias])
    return network


@pytest.fixture(scope="module")
def margins():
    """One margin of each image: images see weights of their own, so that draws are apart."""
    return np.random.default_rng(0).normal(0.5, 1.0, 60)


def test_accuracy_and_loss_of_a_linear_network(margins):
    """The margin of an image has Gaussian noise of sigma sqrt(2); its label is class 0."""
    network = linear(np.stack([margins, np.zeros_like(margins)], 1).astype("float32"))
    images = np.eye(60, dtype="float32").reshape(60, 1, 60, 1)
    found = analysis.under_noise(network, images, np.zeros(60, int), [0, 0.3, 1.5], draws=100)
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    for noisy in found:
        deviation = noisy.sigma * np.sqrt(2)
        z = margins / deviation if deviation else np.inf * margins
        assert np.mean(noisy.accuracies) == pytest.approx(stats.norm.cdf(z).mean(), abs=0.015)
        losses = np.logaddexp(0, -(margins[:, None] + deviation * points))
        expected = (losses @ weights).mean() / weights.sum()
        assert np.mean(noisy.losses) == pytest.approx(expected, rel=0.03)
    assert len(set(found[0].accuracies)) == 1 < len(set(found[2].accuracies))


def test_weights_are_the_same_afterwards(margins):
    network = linear(np.stack([margins, -margins], 1).astype("float32"), np.ones(2, "float32"))
    images, labels = np.ones((3, 1, 60, 1), "float32"), np.array([0, 1, 0])
    before = [weight.tobytes() for weight in network.get_weights()]
    alone = analysis.under_noise(network, images, labels, [0.5], draws=2, seed=4)
    assert [weight.tobytes() for weight in network.get_weights()] == before
    among = analysis.under_noise(network, images, labels, [0.1, 0.5, 2], draws=2, seed=4)
    assert among[1] == alone[0]  # a function of the seed, not of the other sigmas
    assert analysis.under_noise(network, images, labels, [0.5], draws=2, seed=5) != alone
    with pytest.raises(ValueError, match=r"must be 3 integers from 0 to 1.*from 9 to 10"):
        analysis.under_noise(network, images, labels + 9, [1.0])
    assert [weight.tobytes() for weight in network.get_weights()] == before


def test_normalised_noise_has_the_norms_of_filters():
    random = np.random.default_rng(1)
    weights = [random.normal(0, 3, (3, 3, 4, 5)), random.normal(size=5), random.normal(size=(6, 2))]
    weights[0][..., 2] = 0  # a filter that was pruned away stays away
    noise = analysis.directions(weights, 0, 0, normalized=True)
    for drawn, weight in zip(noise, weights, strict=True):
        if weight.ndim == 1:
            assert not drawn.any()
            continue
        axes = tuple(range(weight.ndim - 1))
        norms = np.linalg.norm(drawn.reshape(-1, drawn.shape[-1]), axis=0)
        np.testing.assert_allclose(norms, np.sqrt((weight**2).sum(axes)), rtol=1e-12)
    plain = analysis.directions(weights, 0, 0)
    assert [drawn.shape for drawn in plain] == [weight.shape for weight in weights]
    assert abs(plain[0].std() - 1) < 0.15 and plain[1].any()


def test_normalised_noise_does_not_see_the_scale(margins):
    """Weights eight times as large, on images an eighth as bright, are as flat."""
    kernel = np.random.default_rng(2).normal(size=(60, 3)).astype("float32")
    images = np.random.default_rng(3).normal(size=(50, 1, 60, 1)).astype("float32")
    labels = np.random.default_rng(4).integers(0, 3, 50)

    def losses(scale, normalized):
        network = linear(kernel * np.float32(scale))
        noisy = analysis.under_noise(
            *(network, images / np.float32(scale), labels, [0.5]), normalized=normalized
        )
        return noisy[0].losses

    np.testing.assert_allclose(losses(8, True), losses(1, True), rtol=1e-4)
    assert not np.allclose(losses(8, False), losses(1, False), rtol=1e-2)


@pytest.mark.parametrize("options", [{"draws": 0}, {"seed": -1}, {"sigmas": [-0.1]}])
def test_range(options, margins):
    network = linear(np.stack([margins, margins], 1))
    options = {"sigmas": [0.1], **options}
    with pytest.raises(ArgumentError, match=f"`{next(iter(set(options) - {'sigmas'}), 'sigmas')}`"):
        analysis.under_noise(network, np.ones((1, 1, 60, 1)), np.array([0]), **options)
