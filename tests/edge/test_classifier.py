"""Decisions, against NumPy on the Keras stages' logits."""

import subprocess
import sys
import time
from concurrent import futures
from pathlib import Path

import keras
import numpy as np
import pytest

from kdtoolkit.edge import EarlyExitClassifier, OperatingPoint, images
from kdtoolkit.export.early_exit import to_one_stage
from tests.edge import networks
from tests.edge.networks import CLASSES, COSTS, EXITS, IMAGE_SHAPE, LABELS, OPERATING_POINTS

IMAGES = networks.draw_images(40)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def logits(stages):
    return networks.keras_logits(stages, IMAGES)


@pytest.fixture
def classifier(model):
    return EarlyExitClassifier(model)


def assert_decisions(predictions, expected):
    for prediction, exit_number, index, confidence in zip(predictions, *expected, strict=True):
        assert prediction.exit == EXITS[exit_number]
        assert (prediction.label, prediction.index) == (LABELS[index], index)
        assert prediction.confidence == pytest.approx(confidence, abs=1e-4)
        assert 0 < prediction.milliseconds < 1000


def test_what_the_file_says(classifier, model):
    assert classifier.path == model
    assert classifier.labels == LABELS
    assert classifier.image_shape == IMAGE_SHAPE
    assert classifier.exits == EXITS
    assert classifier.costs == COSTS
    assert classifier.operating_point == 1
    assert classifier.thresholds == (0.99, 0.69)
    assert classifier.operating_points == tuple(
        OperatingPoint(tuple(p["thresholds"]), p["validation_accuracy"], p["cost"])
        for p in OPERATING_POINTS
    )


def test_chained_stages_equal_keras(classifier, logits):
    computed = np.stack([classifier.logits(image) for image in IMAGES])
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed, logits, atol=1e-4)


def test_decisions_equal_numpy(classifier, logits):
    expected = networks.decide(logits, classifier.thresholds)
    assert set(expected[0]) == {0, 1, 2}  # every exit stops some images
    assert_decisions(classifier.predict(IMAGES), expected)


@pytest.mark.parametrize("index", range(3))
def test_operating_points(classifier, logits, index):
    classifier.operating_point = index
    assert classifier.operating_point == index
    assert list(classifier.thresholds) == OPERATING_POINTS[index]["thresholds"]
    expected = networks.decide(logits, OPERATING_POINTS[index]["thresholds"])
    assert_decisions(classifier.predict(IMAGES), expected)


def test_thresholds_by_hand(classifier, logits):
    classifier.thresholds = np.array([2.0, 0.69], np.float32)
    assert classifier.operating_point is None
    assert classifier.thresholds == (2.0, pytest.approx(0.69))
    expected = networks.decide(logits, (2.0, 0.69))
    assert set(expected[0]) == {1, 2}
    assert_decisions(classifier.predict(IMAGES), expected)
    classifier.operating_point = 0
    assert classifier.thresholds == (0.0, 0.0)


def test_confidence_that_equals_its_threshold_stops(classifier):
    classifier.thresholds = (0.0, 0.0)
    confidence = classifier.predict(IMAGES[0]).confidence
    classifier.thresholds = (confidence, 0.0)
    assert classifier.predict(IMAGES[0]).exit == "exit_1"
    classifier.thresholds = (np.nextafter(confidence, 2), 0.0)
    assert classifier.predict(IMAGES[0]).exit == "exit_2"


def test_a_stage_runs_only_when_needed(classifier):
    calls = []
    classifier._stages = [
        lambda stage=stage, number=number, **inputs: (calls.append(number), stage(**inputs))[1]
        for number, stage in enumerate(classifier._stages)
    ]
    classifier.thresholds = (0.0, 0.0)
    classifier.predict(IMAGES[0])
    assert calls == [0]
    classifier.thresholds = (2.0, 0.0)
    classifier.predict(IMAGES[0])
    assert calls == [0, 0, 1]


def test_one_image_or_several(classifier):
    one = classifier.predict(IMAGES[0])
    batch = classifier.predict(IMAGES[:3])
    listed = classifier.predict(list(IMAGES[:3]))
    assert [p[:4] for p in batch] == [p[:4] for p in listed]
    assert one[:4] == batch[0][:4]
    assert classifier.predict([]) == []


def record(classifier):
    """Returns a list that grows: how many images each stage that runs is given."""
    runs = []

    def recorded(number, stage):
        def run(**inputs):
            (values,) = inputs.values()
            runs.append((number, len(values)))
            return stage(**inputs)

        return run

    classifier._stages = [recorded(*numbered) for numbered in enumerate(classifier._stages)]
    return runs


@pytest.mark.parametrize("thresholds", [(0.99, 0.69), (0.0, 0.0), (2.0, 2.0), (0.6, 2.0)])
def test_several_images_at_once_equal_one_at_a_time(classifier, thresholds):
    classifier.thresholds = thresholds
    one_at_a_time = [classifier.predict(image) for image in IMAGES]
    runs = record(classifier)
    assert [p[:4] for p in classifier.predict(IMAGES)] == [p[:4] for p in one_at_a_time]
    assert len(runs) < 20


def test_logits_of_several_images(classifier):
    one_at_a_time = np.stack([classifier.logits(image) for image in IMAGES])
    computed = classifier.logits(IMAGES)
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed, one_at_a_time, rtol=0, atol=1e-5)
    assert classifier.logits([]).shape == (0, len(EXITS), len(LABELS))


def test_only_those_who_are_unsure_go_on(classifier, logits):
    classifier.predict(IMAGES[:4])  # which tries whether several may be given
    runs = record(classifier)
    classifier.predict(IMAGES[:3])
    assert {n for _, n in runs} == {1}  # too few
    runs.clear()
    exits, *_ = networks.decide(logits, classifier.thresholds)
    classifier.predict(IMAGES)
    assert [[n for _, n in runs if _ == number] for number in range(3)] == [
        [32, 8],
        [(exits[:32] > 0).sum(), (exits[32:] > 0).sum()],
        [(exits[:32] > 1).sum(), (exits[32:] > 1).sum()],
    ]


def test_milliseconds_of_several_are_shares(classifier):
    classifier.thresholds = (2.0, 2.0)
    start = time.perf_counter()
    milliseconds = [p.milliseconds for p in classifier.predict(IMAGES[:20])]
    assert 0 < sum(milliseconds) < 1000 * (time.perf_counter() - start)
    assert len(set(milliseconds)) == 1


def test_a_graph_for_one_image_runs_on_one(tmp_path):
    image = keras.Input(IMAGE_SHAPE)
    network = keras.Model(image, keras.layers.Dense(CLASSES)(keras.layers.Flatten()(image)))
    to_one_stage(network, tmp_path / "flat.tflite", labels=LABELS)
    classifier = EarlyExitClassifier(tmp_path / "flat.tflite")
    one_at_a_time = np.stack([classifier.logits(image) for image in IMAGES])
    np.testing.assert_array_equal(classifier.logits(IMAGES), one_at_a_time)
    runs = record(classifier)
    predictions = classifier.predict(IMAGES)
    assert [p.index for p in predictions] == list(one_at_a_time[:, 0].argmax(-1))
    assert runs == [(0, 1)] * len(IMAGES)


def test_a_large_graph_runs_on_one(model, monkeypatch):
    monkeypatch.setattr("kdtoolkit.edge.classifier._SMALL", 1000)
    classifier = EarlyExitClassifier(model)
    runs = record(classifier)
    classifier.predict(IMAGES)
    assert {number for _, number in runs} == {1}


def test_images_of_other_kinds(classifier):
    rng = np.random.default_rng(2)
    others = [rng.integers(0, 256, s).astype(np.uint8) for s in [(20, 30), (9, 9, 1), (16, 20, 4)]]
    fitted = np.stack([images.fit(image, IMAGE_SHAPE) for image in others])
    for given, same in zip(classifier.predict(others), classifier.predict(fitted), strict=True):
        assert given[:4] == same[:4]


def test_an_image_whose_pixels_lie_in_another_order(classifier):
    turned = np.asfortranarray(IMAGES[0])
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(classifier.logits(turned), classifier.logits(IMAGES[0]))
    np.testing.assert_array_equal(
        classifier.logits([turned] * 4), classifier.logits(IMAGES[[0] * 4])
    )


def test_threads_may_share_it(classifier):
    expected = [prediction[:4] for prediction in classifier.predict(IMAGES)]
    logits = classifier.logits(IMAGES[0])
    orders = [
        np.random.default_rng(seed).permutation(20 * list(range(len(IMAGES)))) for seed in range(4)
    ]

    def count_wrong(order):
        wrong = sum(classifier.predict(IMAGES[i])[:4] != expected[i] for i in order)
        for some in np.split(order, [3, 10, 50, 100]):  # of which each resizes the stages
            found = classifier.predict(IMAGES[some])
            wrong += sum(p[:4] != expected[i] for p, i in zip(found, some, strict=True))
        return wrong + sum(not np.array_equal(classifier.logits(IMAGES[0]), logits) for _ in order)

    with futures.ThreadPoolExecutor(len(orders)) as pool:
        assert list(pool.map(count_wrong, orders)) == [0] * len(orders)


def test_logits_are_read_before_another_thread_has_its_turn(classifier):
    expected = classifier.logits(IMAGES[0])
    own = classifier._lock

    class Lock:
        """Whose next turn is another thread's, which comes before anything else is done."""

        def __enter__(self):
            own.acquire()

        def __exit__(self, *_):
            own.release()
            classifier._lock = own
            classifier.logits(IMAGES[1])

    assert np.array_equal(classifier.logits(IMAGES[0]), expected)  # in place from here on
    classifier._lock = Lock()
    assert np.array_equal(classifier.logits(IMAGES[0]), expected)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_many_predictions_take_no_memory(model):
    command = [sys.executable, "benchmarks/edge_memory.py", model, "--first=2000", "--images=20000"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(ran.stdout.rpartition(":")[2]) < 2  # MiB


def test_threads_change_nothing(model, classifier):
    two = EarlyExitClassifier(str(model), threads=2)
    np.testing.assert_allclose(two.logits(IMAGES[0]), classifier.logits(IMAGES[0]), atol=1e-5)


@pytest.mark.parametrize(
    "thresholds", [(0.5,), (0.5,) * 3, (-0.1, 0.5), (np.nan, 0.5), 0.5, "ab", (0.5, np.nan, 0.7)]
)
def test_wrong_thresholds(classifier, thresholds):
    with pytest.raises(ValueError, match=r"Argument `thresholds` must be 2 numbers from 0"):
        classifier.thresholds = thresholds
    assert classifier.thresholds == (0.99, 0.69)


def test_operating_point_of_numpy(classifier):
    try:
        classifier.operating_point = np.int64(2)
        assert type(classifier.operating_point) is int and classifier.operating_point == 2
    finally:
        classifier.operating_point = 1


@pytest.mark.parametrize("index", [-1, 3, 1.0, None])
def test_wrong_operating_point(classifier, index):
    with pytest.raises(ValueError, match=f"an index from 0 to 2. Received: {index}"):
        classifier.operating_point = index
    assert classifier.operating_point == 1


@pytest.mark.parametrize("threads", [0, -1, 1.5])
def test_wrong_threads(model, threads):
    with pytest.raises(ValueError, match=f"Argument `threads` .*Received: threads={threads}"):
        EarlyExitClassifier(model, threads)


def test_wrong_image(classifier):
    with pytest.raises(ValueError, match="must be a uint8 array"):
        classifier.predict(IMAGES[0] / 255)
    with pytest.raises(ValueError, match="must be a uint8 array"):
        classifier.predict("image.png")
