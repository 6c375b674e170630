"""The shared train step: its update in NumPy, replicas, sample weights, and what is saved."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit.methods import DKPP, KD
from kdtoolkit.training import Patriarch, Student
from tests.losses import reference
from tests.training.rows import CLASSES, FEATURES, W, X, Y, linear

EQN_4 = KD(0.6, 1.0)
ONE_HOT = np.eye(CLASSES)[Y]


def mlp(seed=0, normalised=False):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((FEATURES,))
    hidden = keras.layers.Dense(
        8, activation="tanh", kernel_regularizer=keras.regularizers.L2(0.01)
    )
    x = hidden(inputs)
    if normalised:
        x = keras.layers.BatchNormalization(synchronized=True)(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(x))


def batches(batch=13, repeat=1):
    return tf.data.Dataset.from_tensor_slices((X, Y, W)).batch(batch).repeat(repeat)


def test_one_step_is_the_papers_update():
    """Coupled L2 in the gradient, then Nesterov momentum: two steps written out in float64."""
    rate, momentum, decay, eta = 0.1, 0.9, 1e-2, 4 / 7
    network = linear()
    kernel, bias = (np.asarray(w, np.float64) for w in network.get_weights())
    trainer = Patriarch(network, "tolerant", 0.6, 5, weight_decay=decay)
    trainer.compile(keras.optimizers.SGD(rate, momentum=momentum, nesterov=True))
    velocities = [np.zeros_like(kernel), np.zeros_like(bias)]
    for _ in range(2):
        trainer.train_on_batch(X, Y)

        def loss(z):
            return (1 - eta) * reference.crossentropy(
                ONE_HOT, z
            ) + eta * reference.score_difference(z, 5)

        slope = reference.gradient(loss, X @ kernel + bias) / len(X)
        gradients = [X.T @ slope + decay * kernel, slope.sum(0) + decay * bias]
        velocities = [momentum * v - rate * g for v, g in zip(velocities, gradients, strict=True)]
        kernel, bias = (
            w + momentum * v - rate * g
            for w, v, g in zip((kernel, bias), velocities, gradients, strict=True)
        )
    np.testing.assert_allclose(network.get_weights()[0], kernel, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(network.get_weights()[1], bias, rtol=1e-5, atol=1e-6)


class Counted(Patriarch):
    """Knows how often its steps were traced."""

    traces = 0

    def train_step(self, data):
        self.traces += 1
        return super().train_step(data)


@pytest.mark.parametrize(
    "data",
    [lambda: batches(13, 2), lambda: ((X, Y) for _ in range(2))],
    ids=["dataset", "generator"],
)
def test_a_step_is_traced_once(data):
    """Its variables are there before, and no batch was taken to learn of them."""
    trainer = Counted(linear(), "plain")
    trainer.compile("sgd", metrics=["accuracy"])
    trainer.fit(data(), steps_per_epoch=2, verbose=0)
    assert (trainer.traces, int(trainer.optimizer.iterations)) == (1, 2)


def test_a_step_that_reads_is_traced_once():
    trainer = Counted(linear(), "plain")
    trainer.compile("sgd", metrics=["accuracy"], reader=lambda index: tf.gather(X, index))
    trainer.fit(np.arange(len(X)), Y, batch_size=13, verbose=0)
    assert trainer.traces == 1


def test_clipping_acts_on_the_whole_gradient(two_replicas):
    """The update of one plain SGD step has the clip norm, not the sum of two clipped halves."""
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            trainer = Patriarch(linear(), "plain")
            trainer.compile(keras.optimizers.SGD(1.0, global_clipnorm=0.1))
        before = trainer.network.get_weights()
        trainer.fit(batches(12).take(1), verbose=0, shuffle=False)
        moved = [a - b for a, b in zip(trainer.network.get_weights(), before, strict=True)]
        assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(0.1, rel=1e-4)


def two_rates(slow, **options):
    """SGD with 1.0 for the kernel and another rate for the rest."""
    parts = {".*kernel": keras.optimizers.SGD(1.0)}
    parts = keras.optimizers.OptimizerMap(keras.optimizers.SGD(slow), parts)
    return keras.optimizers.MultiOptimizer(parts, **options)


def test_one_optimizer_for_all_variables_where_replicas_share_a_batch(two_replicas):
    """The parts of a `MultiOptimizer` would sum what is summed already; alone there is no sum."""
    network = linear()
    kernel, bias = (np.asarray(w, np.float64) for w in network.get_weights())
    trainer = Patriarch(network, "plain")
    trainer.compile(two_rates(0.25))
    trainer.train_on_batch(X, Y)
    slope = (reference.softmax(X @ kernel + bias) - ONE_HOT) / len(X)
    found = network.get_weights()
    np.testing.assert_allclose(found[0], kernel - X.T @ slope, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], bias - 0.25 * slope.sum(0), rtol=1e-5, atol=1e-6)
    with two_replicas.scope():
        trainer = Patriarch(linear(), "plain")
        with pytest.raises(ValueError, match=r"`optimizer`.* strategy of 2 replicas"):
            trainer.compile(two_rates(0.25))


def test_arguments_of_fit_may_be_given_by_place():
    """In the order of Keras' `fit`: batch size, epochs, verbose, callbacks, validation data."""
    ended = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ended.append(logs))
    trainer = Patriarch(linear())
    trainer.compile("sgd")
    trainer.fit(X, Y, 5, 2, 0, [callback], 0.0, (X, Y))
    assert len(ended) == 2 and "val_loss" in ended[0]
    assert trainer.optimizer.iterations == 2 * 3
    with pytest.raises(ValueError, match="`validation_data` must hold classes from 0"):
        trainer.fit(X, Y, 5, 2, 0, [], 0.0, (X, Y + CLASSES))


def test_sample_weights_scale_each_sample():
    network = linear()
    kernel, bias = (np.asarray(w, np.float64) for w in network.get_weights())
    trainer = Patriarch(network, "plain")
    trainer.compile(keras.optimizers.SGD(1.0))
    logs = trainer.train_on_batch(X, Y, W, return_dict=True)
    z = X @ kernel + bias
    slope = W[:, None] * (reference.softmax(z) - ONE_HOT) / len(X)
    np.testing.assert_allclose(network.get_weights()[0], kernel - X.T @ slope, rtol=1e-5, atol=1e-6)
    assert logs["loss"] == pytest.approx((W * reference.crossentropy(ONE_HOT, z)).mean(), rel=1e-5)


def test_regularisation_is_in_the_loss_and_the_gradient():
    network = linear(kernel_regularizer=keras.regularizers.L2(0.3))
    kernel, bias = (np.asarray(w, np.float64) for w in network.get_weights())
    trainer = Patriarch(network, "plain")
    trainer.compile(keras.optimizers.SGD(1.0))
    logs = trainer.train_on_batch(X, Y, return_dict=True)
    z = X @ kernel + bias
    gradient = X.T @ (reference.softmax(z) - ONE_HOT) / len(X) + 0.6 * kernel
    np.testing.assert_allclose(network.get_weights()[0], kernel - gradient, rtol=1e-4, atol=1e-5)
    expected = reference.crossentropy(ONE_HOT, z).mean() + 0.3 * (kernel**2).sum()
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def _logits(network):
    kernel, bias = (np.asarray(w, np.float64) for w in network.get_weights())
    return X @ kernel + bias


def test_student_terms():
    network, teacher = linear(0), linear(1)
    z, t = _logits(network), _logits(teacher)
    trainer = Student(network, teacher, KD(0.7, 3.0))
    trainer.compile("sgd", metrics=["accuracy"])
    logs = trainer.evaluate(X, Y, verbose=0, return_dict=True)
    label = 0.3 * reference.crossentropy(ONE_HOT, z).mean()
    taught = 0.7 * reference.divergence(t, z, 3.0).mean()
    assert logs["label"] == pytest.approx(label, rel=1e-5)
    assert logs["kd"] == pytest.approx(taught, rel=1e-5)
    assert logs["loss"] == pytest.approx(label + taught, rel=1e-5)
    assert logs["accuracy"] == pytest.approx((z.argmax(-1) == Y).mean())
    assert logs["primary_score"] == pytest.approx(reference.softmax(z).max(-1).mean(), rel=1e-5)


def test_confidence_weighting_is_cwtm():
    network, teacher = linear(0), linear(1)
    trainer = Student(network, teacher, "cwtm")
    trainer.compile("sgd")
    logs = trainer.evaluate(X, Y, batch_size=13, verbose=0, return_dict=True)
    confidence = reference.softmax(_logits(teacher)).max(-1)
    weights = confidence / confidence.sum()  # the paper's, with a sum over the batch
    expected = (weights * reference.crossentropy(ONE_HOT, _logits(network))).sum()
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_permuted_secondary_scores_keep_the_teachers_entropy():
    """DKPP: `KL(permuted teacher || uniform student)` does not depend on the permutation."""
    network, teacher = linear(0), linear(1)
    network.set_weights([np.zeros_like(w) for w in network.get_weights()])
    trainer = Student(network, teacher, "dkpp")
    trainer.compile("sgd")
    logs = trainer.evaluate(X, Y, verbose=0, return_dict=True)
    t = _logits(teacher)
    expected = np.log(CLASSES) - reference.entropy(t).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_permuted_secondary_scores_change_what_is_taught():
    losses = []
    for method in (KD(1.0, 1.0), DKPP(1.0, 1.0)):
        trainer = Student(linear(0), linear(1), method)
        trainer.compile("sgd")
        losses.append(trainer.evaluate(X, Y, verbose=0))
    plain = reference.divergence(_logits(linear(1)), _logits(linear(0)), 1.0).mean()
    assert losses[0][0] == pytest.approx(plain, rel=1e-5)
    assert abs(losses[1][0] - plain) > 1e-3


@pytest.mark.parametrize(
    ("kind", "terms"),
    [
        ("tolerant", ["crossentropy", "score_difference"]),
        ("label_smoothing", ["smoothed_crossentropy"]),
        ("confidence_penalty", ["crossentropy", "confidence_penalty"]),
        ("plain", ["crossentropy"]),
    ],
)
def test_patriarch_terms_sum_to_its_loss(kind, terms):
    network = linear()
    z = _logits(network)
    epsilon, beta = 0.4 * 6 / 5, 1 / (0.6 * np.log(0.6 * 5 / 0.4))
    expected = {
        "tolerant": 3 / 7 * reference.crossentropy(ONE_HOT, z)
        + 4 / 7 * reference.score_difference(z, 5),
        "label_smoothing": reference.crossentropy((1 - epsilon) * ONE_HOT + epsilon / 6, z),
        "confidence_penalty": reference.crossentropy(ONE_HOT, z) - beta * reference.entropy(z),
        "plain": reference.crossentropy(ONE_HOT, z),
    }
    trainer = Patriarch(network, kind, 0.6)
    trainer.compile("sgd")
    logs = trainer.evaluate(X, Y, verbose=0, return_dict=True)
    assert sum(logs[term] for term in terms) == pytest.approx(expected[kind].mean(), rel=1e-5)
    assert logs["loss"] == pytest.approx(expected[kind].mean(), rel=1e-5)


def test_draws_of_a_batch_are_by_the_trainers_seed_and_step():
    trainer = Patriarch(linear(), seed=5)
    batch = trainer.batch(Y, None, None)  # before `compile`, which no other method waits for
    trainer.compile("sgd")
    for step in (0, 3):
        trainer.optimizer.iterations.assign(step)
        expected = tf.random.stateless_uniform(X.shape, [5, step])
        np.testing.assert_array_equal(batch.uniform(tf.constant(X)), expected)


def test_teacher_is_in_inference_mode_and_does_not_change():
    teacher = mlp(1, normalised=True)
    before = teacher.get_weights()
    trainer = Student(mlp(2), teacher, EQN_4)
    trainer.compile(keras.optimizers.SGD(0.5))
    trainer.fit(batches(5), verbose=0, shuffle=False)
    for a, b in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_only_the_network_is_saved(tmp_path):
    network, teacher = mlp(2), mlp(1)
    trainer = Student(network, teacher, EQN_4)
    trainer.compile("sgd")
    trainer.fit(X, Y, verbose=0)
    assert (
        trainer.count_params() - network.count_params() == 5
    )  # the record of non-finite steps, the epoch
    trainer.save(tmp_path / "saved.keras")
    trainer.save_weights(tmp_path / "saved.weights.h5")
    loaded = keras.models.load_model(tmp_path / "saved.keras")
    assert type(loaded) is type(network)
    np.testing.assert_array_equal(loaded(X), network(X))
    np.testing.assert_array_equal(trainer.predict(X, verbose=0), loaded.predict(X, verbose=0))
    other = Student(mlp(3), teacher, EQN_4)
    other.load_weights(tmp_path / "saved.weights.h5")
    np.testing.assert_array_equal(other.network(X), network(X))


def test_no_variable_is_one_that_a_gpu_leaves_in_the_hosts_memory():
    """TensorFlow places int32 variables there, and a step that XLA compiled cannot reach them."""
    trainer = Student(mlp(), mlp(1), EQN_4)
    trainer.compile("sgd")
    trainer.fit(X, Y, verbose=0)
    assert all(variable.dtype != "int32" for variable in trainer.variables)
    assert all(variable.dtype != "int32" for variable in trainer.optimizer.variables)


def test_labels_one_hot_and_indices_train_alike():
    weights = []
    for labels in (Y, ONE_HOT.astype("float32")):
        trainer = Patriarch(linear())
        trainer.compile(keras.optimizers.SGD(0.5), metrics=["accuracy"])
        trainer.fit(X, labels, batch_size=4, shuffle=False, verbose=0)
        weights.append(trainer.network.get_weights()[0])
    np.testing.assert_allclose(*weights, rtol=1e-6)


def test_mixed_bfloat16_trains_in_float32_losses():
    network = keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(8, dtype="mixed_bfloat16"),
            keras.layers.Dense(CLASSES, dtype="float32"),
        ]
    )
    network = keras.Model(network.inputs, network.outputs)
    z = np.asarray(network(X), np.float64)
    trainer = Patriarch(network, "plain")
    trainer.compile("sgd")
    loss = trainer.evaluate(X, Y, verbose=0)[0]
    assert loss == pytest.approx(reference.crossentropy(ONE_HOT, z).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Patriarch(linear(), "soft"), "`kind`.*tolerant.*'soft'"),
        (lambda: Patriarch(linear(), primary_score=0.2), "`primary_score`"),
        (lambda: Patriarch(linear(), top_k=7), "`top_k`.*6.*top_k=7"),
        (lambda: Patriarch(linear(), weight_decay=-1), "`weight_decay`.*-1"),
        (lambda: Student(linear(), linear(), 1.5), r"`methods`.*1\.5"),
        (lambda: Student(linear(), linear(), ()), "`methods` must be at least one"),
        (
            lambda: Student(
                linear(), keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), EQN_4
            ),
            "`teacher`.*6. Received: 3",
        ),
        (lambda: Patriarch(linear(activation="softmax")), "`network`.*logits.*softmax"),
        (
            lambda: Student(linear(), linear(activation="softmax"), EQN_4),
            "`teacher`.*logits.*softmax",
        ),
        (lambda: Patriarch(linear()).compile("sgd", loss="mse"), "`loss`.*mse"),
        (lambda: Patriarch(linear()).compile("sgd", loss_weights={"kd": 2}), "`loss_weights`.*kd"),
        (
            lambda: Patriarch(linear()).fit(X, Y, callbacks=keras.callbacks.BackupAndRestore("x")),
            "`callbacks` must be without BackupAndRestore",
        ),
        (
            lambda: Patriarch(linear()).fit(X, Y, callbacks=keras.callbacks.CallbackList()),
            "`callbacks` must be a list of .*Received: a CallbackList",
        ),
        (
            lambda: Patriarch(linear()).compile(
                keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
            ),
            "`optimizer`.*bfloat16",
        ),
        (
            lambda: Patriarch(linear()).compile(keras.optimizers.SGD(loss_scale_factor=8.0)),
            "`optimizer` must not scale the loss.*loss_scale_factor=8",
        ),
        (
            lambda: Patriarch(linear()).compile(two_rates(0.1, loss_scale_factor=8.0)),
            "`optimizer` must not scale the loss.*loss_scale_factor=8",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_patriarch_of_two_classes_compares_both():
    """Five scores is the usual number; eta is (K - 1) / (K - 1 + K f) for K = 2."""
    image = keras.Input((2,))
    network = keras.Model(image, keras.layers.Dense(2)(image))
    z, y, eta = np.array([[2.0, 0.5], [0.1, 0.3]]), np.array([1, 1]), 1 / (1 + 2 * 0.6)
    scores = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    terms = Patriarch(network, primary_score=0.6).terms(y, tf.constant(z, "float32"), {})
    between = eta * np.abs(scores[:, 0] - scores[:, 1])
    np.testing.assert_allclose(terms["score_difference"], between, rtol=1e-6)
    labels = (1 - eta) * -np.log(scores[[0, 1], y])
    np.testing.assert_allclose(terms["crossentropy"], labels, rtol=1e-6)
