"""What `MutualLearning` accepts, reports and stores; its terms are in test_methods."""

import keras
import numpy as np
import pytest

from kdtoolkit.training import MutualLearning

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.integers(0, 5, 6)


def network(seed, inputs=3, classes=5):
    keras.utils.set_random_seed(seed)
    x = keras.Input((inputs,))
    return keras.Model(x, keras.layers.Dense(classes, name="logits")(x), name="net")


def trainer(count=3):
    made = MutualLearning([network(seed) for seed in range(count)])
    made.compile(keras.optimizers.SGD(0.5), metrics=["accuracy"])
    return made


def test_accuracies_of_each_peer_and_the_first_ones_as_its_own():
    made = trainer()
    logs = made.evaluate(X, Y, verbose=0, return_dict=True)
    logits = made.predict(X, verbose=0)
    for i, peer in enumerate(made.networks, start=1):
        np.testing.assert_allclose(logits[f"peer_{i}"], peer(X), rtol=1e-6)
        accuracy = (np.argmax(peer(X), axis=-1) == Y).mean()
        assert logs[f"peer_{i}_accuracy"] == pytest.approx(accuracy)
    assert logs["accuracy"] == logs["peer_1_accuracy"]


def test_every_peer_learns():
    made = trainer()
    before = [network.get_weights() for network in made.networks]
    made.fit(X, Y, verbose=0)
    for old, peer in zip(before, made.networks, strict=True):
        assert all((a != b).any() for a, b in zip(old, peer.get_weights(), strict=True))


def test_saves_the_peer_of_choice(tmp_path):
    made = trainer()
    for peer, options in ((1, {}), (1, {"peer": 1}), (3, {"peer": 3})):
        made.save(tmp_path / "net.keras", **options)
        loaded = keras.models.load_model(tmp_path / "net.keras")
        np.testing.assert_array_equal(loaded(X), made.networks[peer - 1](X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MutualLearning([network(0)]), r"`networks`.*at least two.*\['net'\]"),
        (lambda: MutualLearning([network(0)] * 2), r"`networks`.*once.*\['net', 'net'\]"),
        (lambda: MutualLearning([network(0), network(1, inputs=4)]), "`networks`.*input_shape"),
        (lambda: MutualLearning([network(0), network(1, classes=4)]), "`networks`.*output_shape"),
        (lambda: trainer(2).save("x.keras", peer=3), "`peer`.*from 1 to 2.*peer=3"),
        (lambda: trainer(2).save("x.keras", peer=0), "`peer`.*peer=0"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
