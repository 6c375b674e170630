"""What `Student` and its `FeatureMatching` accept, and where the projector lives."""

import keras
import numpy as np
import pytest

from kdtoolkit import models
from kdtoolkit.training import FeatureMatching, SelfDistillation, Student
from kdtoolkit.training.checkpoint import Checkpoints

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


def hinted(student_layer="stage2", teacher_layer="stage2", width=6, **options):
    matching = FeatureMatching([(student_layer, teacher_layer)], **options)
    return Student(network(), network(1, width), 0.5, features=matching)


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
        lambda: hinted(kind="attention"),
        lambda: hinted("pooled", "pooled", width=4),
    ],
    ids=["same channels", "attention", "vectors"],
)
def test_no_projector_where_none_is_needed(trainer):
    assert trainer().projectors == []


def test_weights_are_those_of_the_benchmarks_by_default():
    pairs = [("stage1", "stage1")]
    assert FeatureMatching(pairs).weight == 100
    assert FeatureMatching(pairs, "attention").weight == 1000
    assert FeatureMatching(pairs, weight=3.0).weight == 3.0


def plain(**options):
    return Student(network(), network(1), **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plain(adjustment="shift"), "`adjustment`.*probability_shift.*'shift'"),
        (lambda: plain(dynamic_temperature="max"), "`dynamic_temperature`.*student_max.*'max'"),
        (lambda: plain(normalization="l3"), "`normalization`.*l2, l1.*'l3'"),
        (lambda: plain(p=1.0), r"`p`.*\(0, 1\).*p=1\.0"),
        (lambda: plain(slope=-1), "`slope`.*slope=-1"),
        (lambda: plain(gamma=-1), "`gamma`.*gamma=-1"),
        (
            lambda: plain(adjustment="label_smooth", temperature=4.0),
            r"`temperature` must be 1 with adjustment='label_smooth'.*temperature=4\.0",
        ),
        (
            lambda: plain(adjustment="label_smooth", dynamic_temperature="focal"),
            "`dynamic_temperature` must be None with adjustment='label_smooth'.*'focal'",
        ),
        (
            lambda: SelfDistillation(models.add_exits(network(), mid=3), adjustment="label_smooth"),
            r"`temperature` must be 1.*temperature=3\.0",
        ),
        (lambda: hinted("stag2"), "`pairs`.*'net'.*'stag2'. Near matches: stage2"),
        (lambda: hinted(teacher_layer="nothing"), "`pairs`.*'nothing'.$"),
        (lambda: hinted("stage1"), r"`pairs`.*'stage1'.*\(None, 8, 8, 4\).*'stage2'.*\(None, 4, 4"),
        (lambda: hinted("pooled", "pooled"), r"`pairs`.*\(None, 4\).*\(None, 6\)"),
        (lambda: hinted("pooled", "pooled", width=4, kind="attention"), "`pairs`.*'attention'"),
        (lambda: hinted(kind="hints"), "`kind`.*hint, attention.*'hints'"),
        (lambda: hinted(weight=-1.0), r"`weight`.*-1\.0"),
        (lambda: FeatureMatching([]), r"`pairs`.*\[\]"),
        (lambda: FeatureMatching(["stage1"]), r"`pairs`.*\['stage1'\]"),
        (
            lambda: Student(
                network(),
                models.Ensemble([network(1)]),
                features=FeatureMatching([("stage1", "stage1")]),
            ),
            "`teacher`.*functional.*Ensemble",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
