"""Head first, then everything: what moves, by how much, and after an interruption."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdtoolkit import data
from kdtoolkit.training import MutualLearning, Patriarch, Schedule, Settings, Training, Transfer
from kdtoolkit.training.checkpoint import Checkpoints

RATE, SLOW, MOMENTUM, DECAY = 0.1, 0.02, 0.9, 0.01
SCHEDULE = Schedule(4, 6, RATE, drops=(3,), momentum=MOMENTUM, weight_decay=DECAY)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 6, 6, 2)).astype("float32"), RNG.integers(0, 3, 12)


def network(shape=(6, 6, 2), classes=3):
    image = keras.Input(shape)
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.8, name="norm")(x))
    x = layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(image, layers.Dense(classes, name="logits")(x))


class Watch(keras.callbacks.Callback):
    """All variables of the network and momenta after each epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        momenta = self.model.optimizer.momentums
        self.seen.append([np.array(v) for v in (*self.model.network.variables, *momenta)])


def fit(transfer, epochs=4, strategy=None, **options):
    """`(begin, seen, trainer)`: variables before, and those of each epoch with momenta."""
    batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(6)
    keras.utils.set_random_seed(0)
    with (strategy or tf.distribute.get_strategy()).scope():
        trainer = Patriarch(network(), "plain", weight_decay=DECAY)
        trainer.compile(transfer.optimizer(SCHEDULE, trainer, epochs, 2), **options)
    begin, watch = [np.array(v) for v in trainer.network.variables], Watch()
    trainer.fit(
        batches, epochs=epochs, shuffle=False, verbose=0, callbacks=[*transfer.callbacks(), watch]
    )
    return begin, watch.seen, trainer


def by_hand(frozen, slow):
    """What `fit` sees, by the formulas of coupled decay and Nesterov's momentum, in float64."""
    keras.utils.set_random_seed(0)
    net = network()
    conv, norm, dense = (net.get_layer(name) for name in ("conv", "norm", "logits"))
    variables = net.trainable_variables
    momenta, seen = [np.zeros(v.shape) for v in variables], []
    for epoch in range(4):
        trained = epoch >= frozen
        drop = 10 if epoch == 3 else 1
        for start in (0, 6):
            x, y = X[start : start + 6], Y[start : start + 6]
            with tf.GradientTape() as tape:
                features = tf.nn.relu(norm(conv(x), training=trained))
                z = dense(tf.reduce_mean(features, axis=(1, 2)))
                loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y, z)
                gradients = tape.gradient(tf.reduce_mean(loss), variables)
            for index, (variable, gradient) in enumerate(zip(variables, gradients, strict=True)):
                in_head = variable.path.startswith("logits")
                if not in_head and not trained:
                    continue
                rate = (RATE if in_head else slow) / drop
                value = np.asarray(variable, np.float64)
                gradient = np.asarray(gradient, np.float64) + DECAY * value
                momenta[index] = MOMENTUM * momenta[index] - rate * gradient
                variable.assign(value + MOMENTUM * momenta[index] - rate * gradient)
        seen.append([np.array(v) for v in (*net.variables, *momenta)])
    return seen


@pytest.mark.parametrize(("frozen", "slow"), [(2, SLOW), (0, SLOW), (2, None)])
def test_is_sgd_of_two_parts(frozen, slow):
    _, seen, _ = fit(Transfer(frozen, slow))
    for found, expected in zip(seen, by_hand(frozen, slow or RATE), strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"jit_compile": True}])
def test_nothing_frozen_moves(options):
    """Kernels, scales and moving statistics keep every bit; their momenta are zero."""
    begin, seen, trainer = fit(Transfer(2, SLOW), **options)
    names = [v.path for v in trainer.network.variables]
    backbone = [k for k, name in enumerate(names) if not name.startswith("logits")]
    assert len(backbone) == 5
    for epoch in (0, 1):
        for k in backbone:
            np.testing.assert_array_equal(seen[epoch][k], begin[k])
        for momentum in seen[epoch][len(begin) :][:3]:
            assert not momentum.any()
    for k, name in enumerate(names):
        assert (seen[2][k] != seen[1][k]).any(), name
        assert (seen[0][k] != begin[k]).any() == (k not in backbone), name


MAKERS = {
    "alone": lambda: Patriarch(network(), "plain", weight_decay=DECAY),
    "mutual": lambda: MutualLearning([network(), network()], weight_decay=DECAY),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_factor_is_exact(make):
    """A quarter of the rate makes a quarter of the first step's momenta, to the last bit."""
    momenta = []
    for rate in (RATE, RATE / 4):
        batches = tf.data.Dataset.from_tensor_slices((X, Y)).batch(12)
        keras.utils.set_random_seed(0)
        trainer = make()
        optimizer = Transfer(0, rate).optimizer(SCHEDULE, trainer, 4, 1)
        trainer.compile(optimizer)
        trainer.fit(batches, shuffle=False, verbose=0)
        momenta.append([np.array(m) for m in optimizer.momentums])
    for variable, whole, quarter in zip(trainer.trainable_variables, *momenta, strict=True):
        assert whole.any()
        in_head = variable.path.startswith("logits")
        np.testing.assert_array_equal(quarter, whole if in_head else whole / 4)


def test_every_peer_is_frozen():
    """The backbones of both networks keep every bit in the first of two epochs, and then move."""
    keras.utils.set_random_seed(0)
    trainer, seen = MAKERS["mutual"](), []

    def values(*_):
        variables = [v for peer in trainer.networks for v in peer.variables]
        seen.append({id(v): np.array(v) for v in variables if not v.path.startswith("logits")})

    values()
    watch = keras.callbacks.LambdaCallback(on_epoch_end=values)
    trainer.compile("sgd")
    callbacks = [*Transfer(1).callbacks(), watch]
    trainer.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    assert len(seen[0]) == 2 * 5
    for key, value in seen[0].items():
        np.testing.assert_array_equal(seen[1][key], value)
        assert (seen[2][key] != value).any()


@pytest.mark.parametrize("epochs", [1, 2])
def test_what_was_frozen_inside_a_nested_backbone_stays_so(epochs):
    """After a training that is frozen to its end, and after one that thaws the rest."""
    image, photo = keras.Input((6, 6, 2)), keras.Input((6, 6, 2))
    inner = layers.Conv2D(4, 3, name="inner")
    base = keras.Model(image, layers.Conv2D(4, 3, name="outer")(inner(image)), name="base")
    inner.trainable = False
    x = layers.GlobalAveragePooling2D()(base(photo))
    trainer = Patriarch(keras.Model(photo, layers.Dense(3, name="logits")(x)), "plain")
    trainer.compile("sgd")
    before = [np.array(v) for v in base.variables]
    trainer.fit(X, Y, epochs=epochs, verbose=0, callbacks=Transfer(1).callbacks())
    assert [layer.trainable for layer in (base, *base.layers)] == [True, True, False, True]
    for variable, old in zip(base.variables, before, strict=True):
        moved = epochs == 2 and variable.path.startswith("outer")
        assert (np.array(variable) != old).any() == moved, variable.path


def test_two_replicas(two_replicas):
    begin, seen, _ = fit(Transfer(2, SLOW), strategy=two_replicas)
    _, alone, _ = fit(Transfer(2, SLOW))
    for epoch in (0, 1):
        for k in range(5):
            np.testing.assert_array_equal(seen[epoch][k], begin[k])
        for a, b in zip(seen[epoch], alone[epoch], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for k in range(5):  # each replica's own statistics have been averaged
        assert (seen[2][k] != begin[k]).any()


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=40)


class Stop(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def train(directory, digits, transfer, stop=None):
    def trainer():
        return Patriarch(network((8, 8, 1), 10), "plain", weight_decay=DECAY)

    callbacks = [] if stop is None else [Stop(stop)]
    settings = Settings(SCHEDULE, 4, 20, callbacks=callbacks, transfer=transfer)
    training = Training(directory, settings)
    return training.run(trainer, digits)[0]


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_killed_training_ends_with_the_same_weights(stop, digits, tmp_path, monkeypatch):
    """In the frozen part, at its end, and after it; momenta too."""
    tf.config.experimental.enable_op_determinism()
    states = []

    def save(self, trainer, epoch, notes=None, save=Checkpoints.save):
        save(self, trainer, epoch, notes)
        if epoch == 4:
            states.append([np.array(v) for v in self._state(trainer)])

    monkeypatch.setattr(Checkpoints, "save", save)
    transfer = Transfer(2, SLOW)
    train(tmp_path / "whole", digits, transfer)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", digits, transfer, stop)
    train(tmp_path / "killed", digits, transfer)
    for whole, killed in zip(*states, strict=True):
        np.testing.assert_array_equal(whole, killed)


def test_head_alone(digits, tmp_path):
    """Frozen in all epochs; what is saved can be trained."""
    trained = train(tmp_path, digits, Transfer(4))
    fresh = train(tmp_path / "fresh", digits, Transfer(0, 1e-12))  # begins with the same weights
    assert all(layer.trainable for layer in trained.layers)
    saved = keras.models.load_model(tmp_path / "network.keras")
    assert len(saved.trainable_variables) == len(trained.trainable_variables)
    for a, b in zip(trained.trainable_variables, fresh.trainable_variables, strict=True):
        if a.path.startswith("logits"):
            assert (np.array(a) != np.array(b)).any()
        else:
            np.testing.assert_allclose(a, b, atol=1e-9)
    moving = trained.get_layer("norm").moving_mean
    assert not np.any(moving)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1,), "`freeze_epochs` must be an integer of at least 0"),
        ((0, 0.0), "`backbone_learning_rate` must be positive"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Transfer(*arguments)


def test_more_epochs_than_there_are(digits, tmp_path):
    with pytest.raises(ValueError, match="`freeze_epochs` must be at most the number of epochs, 4"):
        train(tmp_path, digits, Transfer(5))
