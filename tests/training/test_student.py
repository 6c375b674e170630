"""What `Student` accepts, what its methods compare, and where the projector lives."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import methods, models
from kdtoolkit.data import Examples
from kdtoolkit.methods import KD, LabelSmooth
from kdtoolkit.training import Student, layer_pairs
from kdtoolkit.training.checkpoint import Checkpoints
from tests.losses import reference

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8, 8, 1)).astype("float32")
Y = RNG.integers(0, 5, 6)


def network(seed=0, width=4, strides=2):
    keras.utils.set_random_seed(seed)
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(width, 3, padding="same", name="stage1")(image)
    x = keras.layers.Conv2D(width, 3, strides, padding="same", name="stage2")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
    return keras.Model(image, keras.layers.Dense(5)(x), name="net")


def hinted(student_layer="stage2", teacher_layer="stage2", width=6, method=methods.FitNet):
    matching = method(layers=((student_layer, teacher_layer),))
    return Student(network(), network(1, width), (KD(0.5, 1.0), matching))


def test_a_projector_is_trained_and_resumed_but_not_saved(tmp_path):
    trainer = hinted()
    trainer.compile("sgd")
    (projector,) = trainer.projectors
    before = [np.asarray(v) for v in projector.trainable_variables]
    trainer.fit(X, Y, verbose=0)
    # A kernel of 4 x 6 without bias, scale and offset of the normalisation.
    assert sum(v.size for v in before) == 4 * 6 + 6 + 6
    for old, variable in zip(before, projector.trainable_variables, strict=True):
        assert (old != variable.numpy()).any(), variable.path
    trainer.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.count_params() == network().count_params()
    np.testing.assert_array_equal(loaded(X), trainer.network(X))

    Checkpoints(tmp_path).save(trainer, 1)
    other = hinted()
    other.compile("sgd")
    assert Checkpoints(tmp_path).restore(other) == (1, {})
    for a, b in zip(projector.weights, other.projectors[0].weights, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "trainer",
    [
        lambda: hinted(width=4),
        lambda: hinted(method=methods.Attention),
        lambda: hinted("pooled", "pooled", width=4),
    ],
    ids=["same channels", "attention", "vectors"],
)
def test_no_projector_where_none_is_needed(trainer):
    assert trainer().projectors == []


def test_attention_compares_the_stages_that_both_have():
    trainer = Student(network(), network(1), "attention")
    pairs = trainer._pairs.value
    assert pairs.teacher_layers == ("stage1", "stage2")


def test_sequential_networks_are_the_functional_ones_that_they_are():
    def sequential(seed, width=4):
        of = network(seed, width)
        return keras.Sequential([keras.Input((8, 8, 1)), *of.layers[1:]]), of

    (student, same), (teacher, its) = sequential(0), sequential(1, 6)
    chosen = [methods.FitNet(), methods.RKD()]
    found = layer_pairs.attach(chosen, student, teacher)
    expected = layer_pairs.attach(chosen, same, its)
    assert found.teacher_layers == expected.teacher_layers
    of_each = zip(found.teaching(X)["features"], expected.teaching(X)["features"], strict=True)
    for features, others in of_each:
        np.testing.assert_array_equal(features, others)
    trainer = Student(student, teacher, chosen)
    trainer.compile("sgd")
    before = [np.array(value) for value in student.get_weights()]
    trainer.fit(X, Y, verbose=0)
    assert all((a != b).any() for a, b in zip(before, student.get_weights(), strict=True))


def test_pairs_of_layers_may_be_lists():
    tuples, lists = (methods.FitNet(layers=kind([kind(["a", "b"])])) for kind in (tuple, list))
    assert tuples == lists and hash(tuples) == hash(lists)


def test_embedding_is_what_the_classifier_takes():
    """Behind a dropout too, which is nothing in inference."""
    dropped = network(1)
    image = dropped.input
    x = keras.layers.Dropout(0.5)(dropped.get_layer("pooled").output)
    dropped = keras.Model(image, keras.layers.Dense(5)(x))
    pairs = layer_pairs.attach([methods.Embedding()], network(), dropped)
    assert pairs.teacher_layers == ("pooled",)
    found = pairs.teaching(X)["features"][0]
    hidden = keras.Model(image, dropped.get_layer("stage2").output)(X)
    np.testing.assert_allclose(found, np.mean(hidden, (1, 2)), rtol=1e-5, atol=1e-6)


def test_methods_read_the_features_of_their_own():
    """Of three methods on layers and embeddings, in any order."""
    chosen = [methods.Attention(), methods.Embedding(), methods.FitNet(), KD()]
    for order in (chosen, chosen[::-1]):
        pairs = layer_pairs.attach(order, network(), network(1))
        features = pairs.teaching(X)["features"]
        of = {m.name: pairs.outputs(m, np.zeros((6, 5)), features) for m in order}
        ranks = {name: [len(f.shape) for f in outputs.features] for name, outputs in of.items()}
        assert ranks == {"attention": [4, 4], "embedding": [], "fitnet": [4], "kd": []}
        given = {name for name, outputs in of.items() if outputs.embedding is not None}
        assert given == {"embedding"}


def plain(*chosen):
    return Student(network(), network(1), chosen)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plain(KD(), KD(0.5)), r"`methods`.*different names.*'kd', 'kd'"),
        (lambda: plain(LabelSmooth(p=0.1)), "`methods`.*LabelSmooth"),
        (
            lambda: plain(KD(1.0, 1.0, corrections=[LabelSmooth(p=0.1)])),
            r"`p` of label_smooth must be in \(1/5, 1\).*p=0.1",
        ),
        (
            lambda: plain(KD(), methods.RKD()).fit(X, Y, 1),
            "`batch_size` must be at least 2 with rkd.*=1",
        ),
        (lambda: hinted("stag2"), "`layers` of fitnet.*'net'.*'stag2'. Near matches: stage2"),
        (lambda: hinted(teacher_layer="nothing"), "`layers`.*'nothing'$"),
        (
            lambda: hinted("stage1"),
            r"`layers`.*height and width.*\(None, 8, 8, 4\).*\(None, 4, 4.*'stage1' and 'stage2'",
        ),
        (lambda: hinted("pooled", "pooled"), r"`layers`.*\(None, 4\).*\(None, 6\)"),
        (
            lambda: hinted("pooled", "pooled", width=4, method=methods.Attention),
            "`layers` of attention",
        ),
        (
            lambda: Student(network(), models.Ensemble([network(1)]), methods.FitNet()),
            "`teacher`.*functional.*Ensemble",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def of_images(shape):
    image = keras.Input(shape)
    return keras.Model(image, keras.layers.Dense(5)(keras.layers.Flatten()(image)))


@pytest.mark.parametrize("shape", [(8, 8, 3), (4, 8, 1)])
def test_a_teacher_of_other_images_is_named_where_it_runs(shape):
    """Not where its logits come with the images: there it is never run."""
    student, logits = network(), RNG.normal(size=(6, 5)).astype("float32")
    trainer = Student(student, of_images(shape), KD(1.0, 1.0))
    trainer.compile("sgd")
    said = rf"`teacher` .* images of shape \(8, 8, 1\)\. Received: one for {re.escape(str(shape))}$"
    with pytest.raises(ValueError, match=said):
        trainer.fit(X, Y, verbose=0)
    x = Examples(X, {"teacher_logits": logits})
    batches = tf.data.Dataset.from_tensor_slices((x, Y)).batch(6)
    logs = trainer.evaluate(batches, verbose=0, return_dict=True)
    expected = reference.divergence(logits, np.asarray(student(X)), 1.0).mean()
    assert logs["kd"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(None, None, 1), (8, 8)], ids=str)
def test_a_teacher_that_takes_the_images_as_well(shape):
    """Of any size; and without the axis of one channel, which Keras takes away by itself."""
    image = keras.Input(shape)
    pooled = keras.ops.mean(image, axis=(1, 2))
    teacher = keras.Model(image, keras.layers.Dense(5)(keras.ops.reshape(pooled, (-1, 1))))
    student = network()
    trainer = Student(student, teacher, KD(1.0, 1.0))
    trainer.compile("sgd")
    logs = trainer.evaluate(X, Y, verbose=0, return_dict=True)
    kernel, bias = (np.asarray(w, np.float64) for w in teacher.get_weights())
    said = X.mean((1, 2)).astype(np.float64) @ kernel + bias
    expected = reference.divergence(said, np.asarray(student(X)), 1.0).mean()
    assert logs["kd"] == pytest.approx(expected, rel=1e-4)


def test_warm_up_follows_the_epochs_of_fit():
    """A weight that rises over half of four epochs: 1/2, 1, 1, 1; and after a resumption too."""
    logs = {}
    for warmup in (0.0, 0.5):
        trainer = Student(network(), network(1), methods.DKD(warmup=warmup))
        trainer.compile(keras.optimizers.SGD(0.0))
        logs[warmup] = trainer.fit(X, Y, epochs=4, verbose=0).history["dkd"]
        logs[warmup] += trainer.fit(X, Y, epochs=4, initial_epoch=1, verbose=0).history["dkd"]
    ratios = np.divide(logs[0.5], logs[0.0])
    np.testing.assert_allclose(ratios, [0.5, 1, 1, 1, 1, 1, 1], rtol=1e-5)
