"""Self-distillation against NumPy float64, and who receives which gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import models
from kdtoolkit.methods import KD, Embedding
from kdtoolkit.training import SelfDistillation
from kdtoolkit.training.self_distillation import METHODS
from tests.losses import reference

CLASSES, N = 5, 6
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(N, 8, 8, 1)).astype("float32")
LABELS = RNG.integers(0, CLASSES, N)
ONE_HOT = np.eye(CLASSES)[LABELS]
ALPHA, LAMBDA, T = (0.3, 0.6), (0.03, 0.5), 3.0


def network(seed=0, channels=1, size=8):
    """Three exits without batch normalisation in the trunk."""
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((size, size, channels))
    for stage, (width, stride) in enumerate(((4, 1), (6, 2), (8, 2)), start=1):
        x = keras.layers.Conv2D(
            width, 3, stride, padding="same", activation="tanh", name=f"stage{stage}"
        )(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return models.add_exits(keras.Model(image, keras.layers.Dense(CLASSES)(x)), mid=3)


def taught(alphas=ALPHA, lambdas=LAMBDA):
    """The methods of the two shallow exits."""
    return {
        f"exit_{k}": (KD(alpha, T), Embedding(weight))
        for k, alpha, weight in zip((1, 2), alphas, lambdas, strict=True)
    }


def trainer(net, methods=METHODS, **options):
    made = SelfDistillation(net, methods, **options)
    made.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    return made


def outputs(net):
    """Logits and pooled features in float64, shallow to deep."""
    found = models.features(net)(IMAGES, training=False)
    names = ("exit_1", "exit_2", "exit_3")
    logits = [np.asarray(found["logits"][name], np.float64) for name in names]
    return logits, [np.asarray(found["features"][name], np.float64) for name in names]


def expected_terms(logits, pooled):
    """Every term per sample, from the paper's formula."""
    terms = {"exit_3_label": reference.crossentropy(ONE_HOT, logits[2])}
    for k in (0, 1):
        name = f"exit_{k + 1}"
        terms[f"{name}_label"] = (1 - ALPHA[k]) * reference.crossentropy(ONE_HOT, logits[k])
        terms[f"{name}_kd"] = ALPHA[k] * reference.divergence(logits[2], logits[k], T)
        terms[f"{name}_embedding"] = LAMBDA[k] * ((pooled[k] - pooled[2]) ** 2).sum(-1)
    return terms


def test_terms_equal_float64():
    net = network()
    logs = trainer(net, taught()).evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    logits, pooled = outputs(net)
    terms = expected_terms(logits, pooled)
    for name, values in terms.items():
        assert logs[name] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6), name
    assert logs["loss"] == pytest.approx(sum(v.mean() for v in terms.values()), rel=1e-5)
    for k, z in enumerate(logits, start=1):
        assert logs[f"exit_{k}_accuracy"] == pytest.approx((z.argmax(-1) == LABELS).mean())
    ensemble = (sum(logits).argmax(-1) == LABELS).mean()
    assert logs["ensemble_accuracy"] == pytest.approx(ensemble)
    assert logs["accuracy"] == logs["exit_3_accuracy"]


@pytest.fixture(scope="module")
def gradients():
    """Gradient of every term with respect to every exit's logits and features."""
    net = network()
    made = trainer(net, taught())
    logits, pooled = outputs(net)
    names = ("exit_1", "exit_2", "exit_3")
    given = {
        "logits": {n: tf.Variable(z, dtype=tf.float32) for n, z in zip(names, logits, strict=True)},
        "features": {
            n: tf.Variable(f, dtype=tf.float32) for n, f in zip(names, pooled, strict=True)
        },
    }
    with tf.GradientTape(persistent=True) as tape:
        terms = made.terms(LABELS, given, {})
        sums = {name: tf.reduce_sum(values) for name, values in terms.items()}
    found = {
        (term, kind, name): tape.gradient(value, variable)
        for term, value in sums.items()
        for kind, variables in given.items()
        for name, variable in variables.items()
    }
    return found, logits, pooled


def test_teacher_terms_give_the_deepest_exit_no_gradient(gradients):
    found, _, _ = gradients
    for (term, kind, name), gradient in found.items():
        if name == "exit_3" and not term.endswith("_label"):
            assert gradient is None, (term, kind)


def test_gradients_equal_central_differences(gradients):
    found, logits, pooled = gradients

    def moved(values, k, value):
        return [value if index == k else other for index, other in enumerate(values)]

    for k in (0, 1):
        name = f"exit_{k + 1}"
        for term in ("label", "kd"):
            expected = reference.gradient(
                lambda z, k=k, key=f"{name}_{term}": expected_terms(moved(logits, k, z), pooled)[
                    key
                ],
                logits[k],
            )
            np.testing.assert_allclose(
                found[f"{name}_{term}", "logits", name], expected, rtol=1e-5, atol=1e-5
            )
        expected = 2 * LAMBDA[k] * (pooled[k] - pooled[2])
        np.testing.assert_allclose(
            found[f"{name}_embedding", "features", name], expected, rtol=1e-4, atol=1e-5
        )


def test_no_gradient_of_the_teacher_reaches_the_deepest_classifier():
    """With labels switched off in all exits but the last, its dense layer moves as if alone."""
    kernels = []
    for methods in (taught((1.0, 1.0), (0.5, 0.5)), ()):
        net = network()
        trainer(net, methods).train_on_batch(IMAGES, LABELS)
        kernels.append(np.asarray(net.output["exit_3"]._keras_history.operation.kernel))
    np.testing.assert_allclose(*kernels, rtol=1e-6, atol=1e-7)


def test_without_methods_it_is_deep_supervision():
    net = network()
    made = trainer(net, ())
    assert made.term_names == ("exit_1_label", "exit_2_label", "exit_3_label")
    logits, _ = outputs(net)
    expected = sum(reference.crossentropy(ONE_HOT, z).mean() for z in logits)
    logs = made.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


def test_two_replicas_equal_one(two_replicas):
    weights = []
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(5).repeat(2)
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            net = network()
            for layer in net.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
            made = trainer(net, taught(), weight_decay=1e-3)
        # Batches of 5 and 1 images: the last is dropped, a replica would have none.
        made.fit(data.filter(lambda x, y: tf.shape(x)[0] > 1), verbose=0, shuffle=False)
        weights.append(net.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_saves_the_network_with_its_exits(tmp_path):
    net = network()
    made = trainer(net)
    made.fit(IMAGES, LABELS, verbose=0)
    made.save(tmp_path / "exits.keras")
    loaded = keras.models.load_model(tmp_path / "exits.keras")
    assert models.exit_names(loaded) == ["exit_1", "exit_2", "exit_3"]
    for name, logits in loaded(IMAGES).items():
        np.testing.assert_array_equal(logits, net(IMAGES)[name])


def of_other_widths():
    """Exits that somebody has made by hand."""
    image = keras.Input(IMAGES.shape[1:])
    outputs = {}
    for name, width in (("exit_1", 4), ("exit_2", 8)):
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(width, 3)(image))
        outputs[name] = keras.layers.Dense(CLASSES)(x)
    return keras.Model(image, outputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SelfDistillation(of_other_widths()),
            "`methods`.*without embedding.*4 of the student, 8 of the teacher",
        ),
        (lambda: SelfDistillation(network(), "fitnet"), "`methods`.*not layers.*'fitnet'"),
        (
            lambda: SelfDistillation(network(), {"exit_3": "kd"}),
            "`methods`.*exit_1, exit_2.*'exit_3'",
        ),
        (
            lambda: SelfDistillation(models.cut(network(), "exit_2")),
            "`network` must be a multi-exit network",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_terms_of_a_teacher_equal_float64():
    """Each of its exits teaches the same exit; the labels have what both teachers leave of them."""
    net, teacher = network(), network(seed=1)
    before = [np.array(v) for v in teacher.variables]
    made = trainer(net, taught(), teacher=teacher, teacher_methods=[KD(0.4, 2.0), Embedding(0.2)])
    logs = made.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    (logits, pooled), (theirs, features) = outputs(net), outputs(teacher)
    terms = expected_terms(logits, pooled)
    for k in range(3):
        name = f"exit_{k + 1}"
        terms[f"{name}_label"] = 0.6 * terms[f"{name}_label"]
        terms[f"{name}_teacher_kd"] = 0.4 * reference.divergence(theirs[k], logits[k], 2.0)
        terms[f"{name}_teacher_embedding"] = 0.2 * ((pooled[k] - features[k]) ** 2).sum(-1)
    for name, values in terms.items():
        assert logs[name] == pytest.approx(values.mean(), rel=1e-5, abs=1e-6), name
    assert logs["loss"] == pytest.approx(sum(v.mean() for v in terms.values()), rel=1e-5)
    made.fit(IMAGES, LABELS, epochs=1, verbose=0)
    for was, variable in zip(before, teacher.variables, strict=True):
        np.testing.assert_array_equal(was, variable)
    assert len(made.trainable_variables) == len(net.trainable_variables)


def test_labels_of_a_tolerant_network_equal_float64():
    net = network()
    made = trainer(net, taught(), primary_score=0.6)
    logs = made.evaluate(IMAGES, LABELS, verbose=0, return_dict=True)
    logits, _ = outputs(net)
    eta = 4 / (4 + 5 * 0.6)  # (K - 1) / (K - 1 + K f)
    for k, (z, left) in enumerate(zip(logits, (1 - ALPHA[0], 1 - ALPHA[1], 1), strict=True)):
        f = np.sort(np.exp(z) / np.exp(z).sum(-1, keepdims=True), axis=-1)[:, ::-1]
        eqn3 = (1 - eta) * reference.crossentropy(ONE_HOT, z)
        eqn3 += eta * (f[:, 0] - f[:, 1:5].mean(-1))
        assert logs[f"exit_{k + 1}_label"] == pytest.approx(left * eqn3.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher_methods": "attention"}, "`teacher_methods` must be those that compare logits"),
        ({"primary_score": 0.2}, "`primary_score` must be in"),
        ({"methods": "dist"}, "`batch_size` must be at least 2 with dist"),
        ({"teacher_methods": "dist"}, "`batch_size` must be at least 2 with dist"),
    ],
)
def test_what_a_generation_refuses(change, message):
    net = network()
    with pytest.raises(ValueError, match=message):
        SelfDistillation(net, teacher=net, **change).fit(IMAGES, LABELS, batch_size=1)


def test_a_teacher_of_other_images():
    """Before anything is trained, and of a network that takes any size once images come."""
    message = r"`teacher` .* \(8, 8, 1\)\. Received: one for \(8, 8, 3\)"
    with pytest.raises(ValueError, match=message):
        SelfDistillation(network(), taught(), teacher=network(channels=3))
    of_any_size = keras.models.clone_model(network(), keras.Input((None, None, 1)))
    made = trainer(of_any_size, taught(), teacher=network(size=16))
    with pytest.raises(ValueError, match=r"\(8, 8, 1\)\. Received: one for \(16, 16, 1\)"):
        made.fit(IMAGES, LABELS, verbose=0)


def test_a_teacher_with_other_exits():
    net, image = network(), keras.Input((8, 8, 1))
    two = keras.Model(image, {k: net(image)[k] for k in ("exit_1", "exit_2")})
    with pytest.raises(ValueError, match="`teacher` must have exits with logits as wide"):
        SelfDistillation(net, teacher=models.flatten(two))
    with pytest.raises(ValueError, match="exits"):
        SelfDistillation(net, teacher=models.cut(net, "exit_3"))
