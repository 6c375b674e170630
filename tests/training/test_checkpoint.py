"""States are exact, atomic, and a damaged one is set aside."""

import json

import keras
import numpy as np
import pytest

from kdtoolkit import data, files
from kdtoolkit.training import (
    NonFiniteError,
    NonFiniteVariableError,
    Patriarch,
    Student,
    checkpoint,
    distribution,
    loop,
)
from kdtoolkit.training.checkpoint import Checkpoints
from kdtoolkit.training.schedules import SCHEDULES

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 4)).astype("float32"), RNG.integers(0, 6, 16)


def trainer(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
    outputs = keras.layers.Dense(6)(keras.layers.Dropout(0.5)(x))
    trainer = Patriarch(keras.Model(inputs, outputs))
    trainer.compile(keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True))
    return trainer


def train(trainer):
    trainer.fit(X, Y, batch_size=4, shuffle=False, verbose=0)


def weights(trainer):
    return trainer.network.get_weights()


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_goes_on_as_if_it_had_not_stopped(tmp_path):
    """Momenta, moving statistics and dropout's random state are part of the state."""
    whole = trainer(0)
    train(whole)
    Checkpoints(tmp_path).save(whole, 1, {"seconds": 2.5})
    train(whole)
    resumed = trainer(7)
    assert Checkpoints(tmp_path).restore(resumed) == (1, {"seconds": 2.5})
    train(resumed)
    assert_equal(weights(whole), weights(resumed))


def test_goes_on_under_a_strategy(tmp_path, two_replicas):
    """A killed run of two replicas: what it trained with is in the strategy's scope again."""
    digits = data.load("digits", train_examples=100)

    def patriarch():
        image = keras.Input(digits.info.image_shape)
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
        x = keras.layers.Dropout(0.2)(keras.layers.Flatten()(keras.layers.ReLU()(x)))
        return Patriarch(keras.Model(image, keras.layers.Dense(digits.info.classes)(x)))

    def run(directory, epochs, stop=None):
        settings = loop.Settings(
            SCHEDULES["digits"], epochs, 50, strategy=two_replicas, callbacks=[stop] if stop else []
        )
        training = loop.Training(directory, settings)
        return training.run(patriarch, digits)[0].get_weights()

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    expected = run(tmp_path / "whole", 2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 2, Stop())
    # Sums over threads of two replicas are not ordered: rounding, not bits.
    for a, b in zip(expected, run(tmp_path / "killed", 2), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def adapted(data):
    """A network that returns the deviations of four features from what it has found in data."""
    layer = keras.layers.Normalization()
    layer.adapt(data)
    return keras.Sequential([keras.Input((4,)), layer])


def assert_deviations(network):
    x = X.astype("float64")
    np.testing.assert_allclose(network(X), (x - x.mean(0)) / x.std(0), rtol=1e-4, atol=1e-5)


def test_a_state_has_what_was_adapted(tmp_path):
    saved, resumed = (Patriarch(adapted(data)) for data in (X, 3 * X + 1))
    for trainer in (saved, resumed):
        trainer.compile(keras.optimizers.SGD(0.1))
    Checkpoints(tmp_path).save(saved, 1)
    Checkpoints(tmp_path).restore(resumed)
    assert_deviations(resumed.network)


def test_a_finished_network_on_another_worker_has_what_was_adapted(tmp_path, monkeypatch):
    """It is given the weights that the chief has read."""
    weights = adapted(X).get_weights()
    training = loop.Training(tmp_path, loop.Settings(SCHEDULES["digits"], 1, 20))
    monkeypatch.setattr(loop, "from_chief", lambda strategy, read: ({}, weights))
    network, _ = training.load(lambda: adapted(3 * X + 1))
    assert_deviations(network)


def test_a_workers_own_copy_has_what_was_adapted(monkeypatch):
    monkeypatch.setattr(distribution, "has_workers", lambda strategy: True)
    assert_deviations(distribution.local(adapted(X)))


@pytest.fixture
def history(tmp_path):
    """A function that runs a training of three epochs and returns its recorded history."""
    digits = data.load("digits", train_examples=40)

    def build():
        image = keras.Input(digits.info.image_shape)
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(2, 3)(image))
        x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
        return keras.Model(image, keras.layers.Dense(10)(x))

    def train(name, *callbacks, evaluate=lambda network: {}):
        settings = loop.Settings(SCHEDULES["digits"], 3, 20, callbacks=list(callbacks))
        training = loop.Training(tmp_path / name, settings)
        training.complete(build, lambda: Patriarch(build()), digits, evaluate)
        return files.read_record(tmp_path / name / "results.json")["history"]

    return train


class Kill(keras.callbacks.Callback):
    """What a kill in an epoch does: its first batches are lost."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.last:
            raise KeyboardInterrupt


def killed(network):
    raise KeyboardInterrupt


def test_history_is_that_of_a_training_without_interruptions(history):
    """Killed in two epochs, and between the last state and the record."""
    expected = history("whole")
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(expected)
    assert {len(values) for values in expected.values()} == {3}
    for interruption in ({"epoch": 1}, {"epoch": 2}, {"evaluate": killed}):
        epoch = interruption.pop("epoch", None)
        with pytest.raises(KeyboardInterrupt):
            history("killed", *([] if epoch is None else [Kill(epoch)]), **interruption)
    assert history("killed") == expected


def test_history_of_a_state_without_one(history, tmp_path):
    """A state of an older version: what it does not tell of is not taken for the first epochs."""
    expected = history("whole")
    with pytest.raises(KeyboardInterrupt):
        history("older", Kill(1))
    (path,) = (tmp_path / "older").glob("*.state")
    arrays = checkpoint._unpack(path.read_bytes())
    header = json.loads(arrays["header"].tobytes())
    del header["notes"]["history"]
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    path.write_bytes(checkpoint._pack(arrays))
    assert history("older") == {name: [None, *values[1:]] for name, values in expected.items()}


def test_history_of_what_is_not_finite(history):
    """A loss of validation images may overflow where that of training images does not."""

    class Overflow(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["val_loss"] = [np.inf, np.nan, 1.0][epoch]

    assert history("overflow", Overflow())["val_loss"] == [None, None, 1.0]


def test_pace_is_that_of_the_epochs_that_were_trained(history, tmp_path):
    """Killed in the second of three epochs, then stopped after it: two epochs of 40 images."""

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    with pytest.raises(KeyboardInterrupt):
        history("stopped", Kill(1))
    assert len(history("stopped", Stop())["loss"]) == 2
    found = files.read_record(tmp_path / "stopped" / "results.json")
    images = len(data.load("digits", train_examples=40).train)
    assert found["images_per_second"] * found["seconds"] == pytest.approx(2 * images)


def test_batches_that_teach_nothing(tmp_path):
    def network():
        image = keras.Input((8, 8, 1))
        return keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(image)))

    training = loop.Training(tmp_path, loop.Settings(SCHEDULES["digits"], 1, batch_size=1))
    with pytest.raises(ValueError, match="`batch_size` must be at least 2 with dist"):
        training.run(
            lambda: Student(network(), network(), "dist"), data.load("digits", train_examples=40)
        )


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_that_is_not_positive(tmp_path, batch_size):
    training = loop.Training(tmp_path, loop.Settings(SCHEDULES["digits"], 1, batch_size))
    with pytest.raises(ValueError, match=f"`batch_size` must be .*positive.*{batch_size}"):
        training.run(lambda: overflowing(1.0), data.load("digits", train_examples=40))


def overflowing(scale):
    """Images of up to 1e25 have a variance beyond float32: normalised by it, they are finite."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.Rescaling(scale)(image)
    x = keras.layers.Flatten()(keras.layers.BatchNormalization(name="norm")(x))
    return Patriarch(keras.Model(image, keras.layers.Dense(10)(x)), "plain")


def test_nothing_that_is_not_finite_is_stored(tmp_path):
    """Neither a state nor a network, nor one of a state that is older than these checks."""
    digits = data.load("digits", train_examples=30)
    settings = loop.Settings(SCHEDULES["digits"], epochs=1, batch_size=30)

    def run(name, scale, figures):
        training = loop.Training(tmp_path / name, settings)
        return training.complete(
            lambda: overflowing(scale).network,
            lambda: overflowing(scale),
            digits,
            lambda n: figures,
        )

    with pytest.raises(NonFiniteVariableError, match="norm/moving_variance"):
        run("overflow", 1e25, {})
    assert not (tmp_path / "overflow").exists()

    with pytest.raises(NonFiniteError, match=r"figures are not finite: .*nan"):
        run("figures", 1.0, {"exits": {"exit_1": {"test_loss": float("nan")}}})
    left = [path.name for path in (tmp_path / "figures").iterdir()]
    assert "results.json" not in left

    state = overflowing(1.0)
    state.compile(SCHEDULES["digits"].optimizer(1, 1))
    state.network.get_layer("norm").moving_variance.assign([np.inf])
    Checkpoints(tmp_path / "older").save(state, 1)
    with pytest.raises(NonFiniteVariableError, match="norm/moving_variance"):
        run("older", 1.0, {})
    assert [p.name for p in (tmp_path / "older").iterdir()] == ["checkpoint-00001.state"]


def test_nothing_to_restore(tmp_path):
    fresh = trainer(0)
    before = weights(fresh)
    assert Checkpoints(tmp_path / "absent").restore(fresh) == (0, {})
    assert_equal(before, weights(fresh))


def test_two_states_are_kept(tmp_path):
    saved = trainer(0)
    for epoch in (1, 2, 3):
        Checkpoints(tmp_path).save(saved, epoch)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00002.state", "checkpoint-00003.state"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text"])
def test_damaged_state_is_named_set_aside_and_the_one_before_used(tmp_path, damage):
    saved, checkpoints = trainer(0), Checkpoints(tmp_path)
    train(saved)
    checkpoints.save(saved, 1)
    expected = weights(saved)
    train(saved)
    checkpoints.save(saved, 2)
    path = tmp_path / "checkpoint-00002.state"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    elif damage == "empty":
        content.clear()
    else:
        content[:] = b"not a checkpoint"
    path.write_bytes(content)
    restored = trainer(5)
    with pytest.warns(UserWarning, match=r"checkpoint-00002\.state is damaged"):
        assert checkpoints.restore(restored)[0] == 1
    assert_equal(expected, weights(restored))
    assert (tmp_path / "checkpoint-00002.state.damaged").exists()
    assert not path.exists()


def test_state_of_another_training_is_set_aside(tmp_path):
    saved = trainer(0)
    Checkpoints(tmp_path, training={"generation": 0}).save(saved, 1)
    fresh = trainer(5)
    with pytest.warns(UserWarning, match="it is of another training, {'generation': 0}"):
        assert Checkpoints(tmp_path, training={"generation": 1}).restore(fresh) == (0, {})


def test_state_of_another_network_changes_nothing(tmp_path):
    keras.utils.set_random_seed(0)
    other = Patriarch(keras.Model(i := keras.Input((4,)), keras.layers.Dense(6)(i)))
    other.compile(keras.optimizers.SGD(0.1))
    Checkpoints(tmp_path).save(other, 1)
    fresh = trainer(0)
    before = weights(fresh)
    with pytest.warns(UserWarning, match="variables stored"):
        assert Checkpoints(tmp_path).restore(fresh) == (0, {})
    assert_equal(before, weights(fresh))
