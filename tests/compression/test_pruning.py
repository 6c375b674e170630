"""`MagnitudePruning` beside TFMOT on tf-keras, NumPy, and itself when interrupted."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kdtoolkit import data, models
from kdtoolkit.compression import ConstantSparsity, MagnitudePruning, PolynomialDecay, sparsity
from kdtoolkit.training import Patriarch, SelfDistillation, loop
from kdtoolkit.training.schedules import SCHEDULES

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(48, 6, 6, 2)).astype("float32"), RNG.integers(0, 3, 48)
NOW = ConstantSparsity(0.5, begin_step=1, frequency=1000)


def network(kind=keras, shape=(6, 6, 2), classes=3):
    """The same architecture in Keras 3 and in tf-keras."""
    inputs = kind.Input(shape)
    x = kind.layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = kind.layers.Dense(8, activation="relu", name="dense")(kind.layers.Flatten()(x))
    return kind.Model(inputs, kind.layers.Dense(classes, name="head")(x))


def plain(kind=keras, **options):
    keras.utils.set_random_seed(0)
    model = network(kind)
    loss = kind.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(kind.optimizers.SGD(0.05, momentum=0.9), loss=loss, **options)
    return model


def fit(model, *callbacks, epochs=2, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def everything(layer):
    return True


class Zeros(keras.callbacks.Callback):
    """Sparsity of the network after each step, as a later callback sees it."""

    def on_train_begin(self, logs=None):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(sparsity(self.model).total)


# Six steps an epoch; updates within epochs, at their ends and their beginnings.
@pytest.mark.parametrize(
    "schedule",
    [
        PolynomialDecay(0.1, 0.75, begin_step=2, end_step=14, frequency=2),
        ConstantSparsity(0.5, begin_step=1, frequency=1),
    ],
)
def test_equals_tfmot_on_tf_keras(schedule):
    """Same weights, batches and momentum: the same masks, thresholds and weights."""
    import tf_keras
    from tensorflow_model_optimization.sparsity import keras as tfmot

    ours, theirs = plain(), plain(tf_keras)
    theirs.set_weights(ours.get_weights())
    wrapped = tfmot.prune_low_magnitude(theirs, pruning_schedule=schedule)
    wrapped.compile(
        tf_keras.optimizers.SGD(0.05, momentum=0.9),
        loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    pruning = MagnitudePruning(schedule, layers=everything)
    fit(ours, pruning, epochs=3)
    fit(wrapped, tfmot.UpdatePruningStep(), epochs=3)

    for layer in wrapped.layers:
        if not getattr(layer, "pruning_vars", None):
            continue
        _, mask, threshold = layer.pruning_vars[0]
        name = layer.layer.name
        np.testing.assert_array_equal(pruning.masks[name], mask)
        np.testing.assert_allclose(pruning.thresholds[name], threshold, rtol=1e-4)
    for a, b in zip(ours.get_weights(), tfmot.strip_pruning(wrapped).get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(a == 0, b == 0)


def test_keras_3_stays_keras_3():
    """TFMOT's import would set the variable, for child processes too, and flip `tf.keras`."""
    assert "TF_USE_LEGACY_KERAS" not in os.environ
    assert tf.keras.layers.Dense is keras.layers.Dense


def test_global_threshold():
    """All weights in one row: NumPy's smallest, of the weights that it was drawn from."""
    model = plain()
    before = {name: model.get_layer(name).kernel.numpy() for name in ("conv", "dense", "head")}
    pruning = MagnitudePruning(NOW, layers=everything, threshold="global")
    fit(model, pruning, epochs=1)
    row = np.sort(np.abs(np.concatenate([kernel.ravel() for kernel in before.values()])))
    threshold = row[-round(row.size / 2)]
    assert set(pruning.thresholds.values()) == {float(threshold)}
    for name, kernel in before.items():
        np.testing.assert_array_equal(pruning.masks[name], np.abs(kernel) >= threshold)
        np.testing.assert_array_equal(
            model.get_layer(name).kernel.numpy()[np.abs(kernel) < threshold], 0
        )
    found = sparsity(model)
    assert found.total == pytest.approx(0.5, abs=1 / row.size)
    assert len(set(found.layers.values())) == 3  # each layer's own


def test_zero_after_every_step():
    """Momentum moves pruned weights in every step, and callbacks never see it."""
    model, zeros = plain(), Zeros()
    fit(model, MagnitudePruning(NOW, layers=everything), zeros)
    np.testing.assert_allclose(zeros.seen, 0.5, atol=0.01)
    kernel = model.get_layer("dense").kernel.numpy()
    assert not np.signbit(kernel[kernel == 0]).any()  # -0.0 does not compress with 0.0


def test_zero_after_the_optimizer_put_its_average_in_place():
    model = plain()
    model.compile(keras.optimizers.SGD(0.05, use_ema=True), loss=model.loss)
    fit(model, MagnitudePruning(NOW, layers=everything), epochs=1)
    assert sparsity(model).total == pytest.approx(0.5, abs=0.01)


def test_sparsity_of_layers_in_logs_and_file(tmp_path):
    """What a layer ends with, in the history, in the network and in what is saved."""
    model = plain()
    decay = PolynomialDecay(0.0, 0.8, begin_step=0, end_step=12, frequency=4)
    pruning = MagnitudePruning(decay, layers=everything, sparsity={"d*": 0.25, "dense": 0.1})
    history = fit(model, pruning).history
    expected = {"conv": 0.8, "dense": 0.25, "head": 0.8}
    sizes = {"conv": 72, "dense": 512, "head": 24}
    for name, value in expected.items():
        assert history[f"sparsity/{name}"][-1] == pytest.approx(value, abs=0.5 / sizes[name])
    total = sum(expected[name] * size for name, size in sizes.items()) / sum(sizes.values())
    assert history["sparsity"][-1] == pytest.approx(total, abs=0.003)
    assert history["sparsity"][0] < history["sparsity"][1]
    model.save(tmp_path / "pruned.keras")
    stored = sparsity(keras.models.load_model(tmp_path / "pruned.keras"))
    assert stored.layers == pytest.approx({k: history[f"sparsity/{k}"][-1] for k in expected})


def test_two_of_four_follows_its_schedule():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6, 6, 2)), layers.Flatten(), layers.Dense(40, name="a")])
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    decay = PolynomialDecay(0.1, 0.5, begin_step=1, end_step=11, frequency=5, power=1)
    zeros = Zeros()
    pruning = MagnitudePruning(decay, layers="a", structure="2:4")
    fit(model, pruning, zeros)
    np.testing.assert_allclose(zeros.seen[:4], 0.1, atol=1e-3)
    np.testing.assert_allclose(zeros.seen[4:9], 0.3, atol=1e-3)
    np.testing.assert_allclose(zeros.seen[9:], 0.5, atol=1e-3)
    groups = model.get_layer("a").kernel.numpy().T.reshape(-1, 4)
    assert (np.count_nonzero(groups, axis=1) <= 2).all()


def test_trainer_of_a_multi_exit_network():
    """The trainer's network is pruned; the trainer itself computes with the same variables."""
    trainer = SelfDistillation(models.add_exits(models.build("resnet8", (8, 8, 1), 3), mid=4))
    trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    images = RNG.normal(size=(16, 8, 8, 1)).astype("float32")
    history = trainer.fit(
        images,
        Y[:16],
        batch_size=8,
        verbose=0,
        callbacks=[MagnitudePruning(NOW, layers=["stage*", "exit_*conv*"])],
    ).history
    found = sparsity(trainer.network).layers
    pruned = {name: value for name, value in found.items() if f"sparsity/{name}" in history}
    assert any(name.startswith("exit_1") for name in pruned)
    np.testing.assert_allclose(list(pruned.values()), 0.5, atol=0.01)
    assert all(value == 0 for name, value in found.items() if name not in pruned)


class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def train(directory, *callbacks, strategy=None):
    """Two steps an epoch; masks are drawn for steps 1, 3, 5 and 7."""
    digits = data.load("digits", train_examples=100)
    schedule = PolynomialDecay(0.2, 0.8, begin_step=1, end_step=7, frequency=2)
    pruning = MagnitudePruning(schedule, layers=everything)
    settings = loop.Settings(
        SCHEDULES["digits"],
        epochs=4,
        batch_size=50,
        callbacks=[pruning, *callbacks],
        strategy=strategy or tf.distribute.get_strategy(),
    )
    training = loop.Training(directory, settings, log_dir=directory / "logs")
    trained, _ = training.run(lambda: Patriarch(network(shape=(8, 8, 1), classes=10)), digits)
    return trained, pruning


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    return directory, *train(directory)


def test_killed_training_goes_on_exactly(whole, tmp_path):
    """Weights, masks, thresholds and step, bit for bit."""
    directory, expected, masks = whole
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, Stop())
    resumed, pruning = train(tmp_path)
    for a, b in zip(expected.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(masks.variables, pruning.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(pruning.variables[0]) == 8
    stored = keras.models.load_model(tmp_path / "network.keras", compile=False)
    assert sparsity(stored) == sparsity(resumed)
    events = b"".join(path.read_bytes() for path in (directory / "logs").glob("*/*"))
    assert b"sparsity/dense" in events


def test_two_replicas_have_the_same_masks(whole, tmp_path, two_replicas):
    """Those of one, up to a weight that rounding moves across the threshold."""
    _, alone, expected = whole
    trained, pruning = train(tmp_path, strategy=two_replicas)
    for name, mask in expected.masks.items():
        assert np.sum(mask != pruning.masks[name]) <= 2
    assert sparsity(trained) == sparsity(alone)
    for variable in (*trained.variables, *pruning.variables):
        first, second = variable.value.values
        np.testing.assert_array_equal(first, second)


def test_a_second_fit_goes_on_and_a_new_network_starts_anew():
    pruning = MagnitudePruning(
        PolynomialDecay(0.0, 0.5, begin_step=1, end_step=6, frequency=1), layers=everything
    )
    model, other = plain(), plain()
    fit(model, pruning, epochs=1)
    fit(model, pruning, epochs=1)
    assert int(pruning.variables[0]) == 12
    fit(other, pruning, epochs=1)
    assert int(pruning.variables[0]) == 6
    assert sparsity(other).total == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"schedule": 0.5}, "`schedule` must be a ConstantSparsity or a PolynomialDecay"),
        ({"schedule": PolynomialDecay(0, 0.5, 5, 5)}, "must end after it begins"),
        ({"schedule": PolynomialDecay(0.6, 0.5, 0, 5)}, "must not end less sparse"),
        ({"sparsity": {"a": 1.0}}, r"`sparsity` must be in \[0, 1\)\. Received: sparsity=1\.0"),
        (
            {"sparsity": {"a": "half"}},
            r"`sparsity` must be in \[0, 1\)\. Received: sparsity='half'",
        ),
        ({"sparsity": {"a": -0.1}}, r"`sparsity` must be in \[0, 1\)\. Received: sparsity=-0\.1"),
        (
            {"threshold": "glob"},
            "`threshold` must be one of layer, global. Received: threshold='gl",
        ),
        ({"structure": "1:2"}, "`structure` must be None or '2:4'. Received: structure='1:2'"),
        ({"threshold": "global", "structure": "2:4"}, "`threshold` must be 'layer' where"),
        ({"threshold": "global", "sparsity": {"a": 0.1}}, "`threshold` must be 'layer' where"),
        (
            {"schedule": ConstantSparsity(0.6, 0), "structure": "2:4"},
            r"`schedule` must end with a sparsity in \[0, 0\.5\]\. Received: 0\.6",
        ),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        MagnitudePruning(**{"schedule": NOW, **arguments})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layers": "dens"}, "Near matches: dense"),
        ({"sparsity": {"heat": 0.1}}, "`sparsity` must match layers .* Near matches: head"),
        ({"structure": "2:4"}, r"`structure` must be None .* There are 'conv' \(3, 3, 2, 4\)$"),
        (
            {"schedule": PolynomialDecay(0, 0.5, 0, 13)},
            "whose last step is 12. Received: begin_step=0, end_step=13",
        ),
        ({"schedule": ConstantSparsity(0.5, 13)}, "whose last step is 12. Received: begin_step=13"),
    ],
)
def test_refused_before_a_weight_is_changed(arguments, message):
    model = plain()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message) as error:
        fit(model, MagnitudePruning(**{"schedule": NOW, "layers": everything, **arguments}))
    assert "\n" not in str(error.value)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_several_steps_per_execution_are_refused():
    with pytest.raises(
        ValueError, match=r"`steps_per_execution` must be 1.* Received: steps_per_e"
    ):
        fit(plain(steps_per_execution=2), MagnitudePruning(NOW, layers=everything))
