"""A tiny network with two exits on digits: every figure again, image by image, in NumPy."""

import contextlib
import dataclasses
import io
import json

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from scipy import stats

from kdtoolkit import data, export, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit.edge import EarlyExitClassifier
from kdtoolkit.edge.__main__ import main
from kdtoolkit.export import early_exit, early_exit_files, parity
from tests.losses import reference

MAX_DROP = 0.02
EXITS = ("exit_1", "exit_2")
# Multiply-accumulates at 4x4 places: before the exit, behind it, and of its head, a bottleneck
# of 8 channels and a dense layer.
BEFORE, BEHIND = 16 * 9 * 4, 16 * 9 * 4 * 32 + 16 * 9 * 32 * 32 + 32 * 10
HEAD = 16 * (4 * 8 + 8 * 8 + 8 * 32) + 32 * 10
COSTS = ((BEFORE + HEAD) / (BEFORE + BEHIND), (BEFORE + HEAD + BEHIND) / (BEFORE + BEHIND))


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def build():
    images = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, 2, padding="same", activation="relu", name="shallow")(images)
    y = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    y = layers.Conv2D(32, 3, padding="same", activation="relu")(y)
    return keras.Model(images, layers.Dense(10)(layers.GlobalAveragePooling2D()(y)))


def fit(network, labels, digits, epochs):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(
        keras.optimizers.Adam(0.01), loss=keras.tree.map_structure(lambda _: loss, labels)
    )
    network.fit(normalised(digits.train), labels, 64, epochs, verbose=0)
    return network


def normalised(split):
    """The images as a network takes them, by the formula."""
    preprocessing = split.preprocessing
    return ((split.images / 255 - preprocessing.mean) / preprocessing.std).astype("float32")


@pytest.fixture(scope="module")
def network(digits):
    keras.utils.set_random_seed(0)
    network = models.add_exits(build(), ["shallow"], mid=8)
    return fit(network, dict.fromkeys(EXITS, digits.train.labels), digits, 6)


@pytest.fixture(scope="module")
def packaged(network, digits, tmp_path_factory):
    directory = tmp_path_factory.mktemp("package") / "made" / "here"
    announced = []
    package = export.package_early_exit(
        network,
        digits,
        directory,
        quantizations=["float32", "int8"],
        max_accuracy_drop=MAX_DROP,
        before_file=lambda path: announced.append((path, path.exists())),
    )
    return package, directory, announced


def probabilities(network, split, temperatures=(1, 1)):
    """float64 `(exits, n, classes)`."""
    logits = network.predict(normalised(split), verbose=0)
    return np.stack(
        [reference.softmax(logits[e] / t) for e, t in zip(EXITS, temperatures, strict=True)]
    )


def stops(network, split, package, threshold):
    """Classes and costs of the images, of which the sure ones stop at exit 1."""
    f = probabilities(network, split, package.temperatures)
    sure = f[0].max(-1) >= threshold
    classes = np.where(sure, f[0].argmax(-1), f[1].argmax(-1))
    return classes, np.where(sure, *COSTS)


def test_costs_are_counted(packaged):
    package, _, _ = packaged
    assert package.costs == pytest.approx(COSTS)
    assert [one.cost for one in package.alone] == pytest.approx([COSTS[0], 1.0])


def test_temperatures_make_the_least_cross_entropy(packaged, network, digits):
    """Of a grid, on validation images."""
    package, _, _ = packaged
    labels = digits.validation.labels
    logits = network.predict(normalised(digits.validation), verbose=0)

    def loss(exit, temperature):
        f = reference.softmax(logits[exit] / temperature)
        return -np.log(f[np.arange(len(labels)), labels]).mean()

    for exit, temperature in zip(EXITS, package.temperatures, strict=True):
        least = min(loss(exit, t) for t in np.geomspace(0.05, 20, 400))
        assert loss(exit, temperature) <= least + 1e-6


def test_operating_points_are_what_they_say(packaged, network, digits):
    package, directory, _ = packaged
    curve = json.loads((directory / "early_exit.json").read_text())
    assert len(package.operating_points) == len(curve["operating_points"]) > 3
    for point, row in zip(package.operating_points, curve["operating_points"], strict=True):
        for split, accuracy, cost in (
            (digits.validation, point.validation_accuracy, point.cost),
            (digits.test, row["test_accuracy"], row["test_cost"]),
        ):
            classes, paid = stops(network, split, package, *point.thresholds)
            assert accuracy == pytest.approx(np.mean(classes == split.labels))
            assert cost == pytest.approx(np.mean(paid))
    assert (directory / "early_exit.png").read_bytes().startswith(b"\x89PNG")
    assert curve["verdict"] == package.choice.verdict


def test_the_cheapest_that_is_accurate_enough_is_chosen(packaged, network, digits):
    package, _, _ = packaged
    f, labels = probabilities(network, digits.validation), digits.validation.labels
    exits = [np.mean(f[k].argmax(-1) == labels) for k in (0, 1)]
    assert [one.validation_accuracy for one in package.alone] == pytest.approx(exits)
    good = [p for p in package.operating_points if p.validation_accuracy >= exits[1] - MAX_DROP]
    chosen = package.operating_points[package.choice.operating_point]
    assert chosen.cost == min(point.cost for point in good)
    assert exits[0] < exits[1] - MAX_DROP  # so that exit 1 alone is not good enough
    assert (package.choice.alone, package.choice.recommended) == ("exit_2", "early_exit")
    x = normalised(digits.test)
    alone = package.classifier.predict(x, verbose=0)
    np.testing.assert_allclose(alone, network.predict(x, verbose=0)["exit_2"], atol=1e-5)


def test_files_are_what_the_network_decides(packaged, network, digits):
    package, directory, announced = packaged
    paths = [directory / "early_exit-float32.tflite", directory / "early_exit-int8.tflite"]
    assert announced == [(path, False) for path in paths]
    assert [file.path for file in package.files] == paths
    point = package.operating_points[package.choice.operating_point]
    classes, paid = stops(network, digits.test, package, *point.thresholds)
    file, integers = package.files
    classifier = EarlyExitClassifier(file.path)
    assert [p.index for p in classifier.predict(list(digits.test.images))] == classes.tolist()
    assert file.test_accuracy == pytest.approx(np.mean(classes == digits.test.labels))
    assert file.mean_exit_cost == pytest.approx(np.mean(paid))
    whole = probabilities(network, digits.test)[1].argmax(-1)
    assert file.full_test_accuracy == pytest.approx(np.mean(whole == digits.test.labels))
    assert file.exported.bytes == file.path.stat().st_size > integers.exported.bytes
    for one in package.files:
        assert one.failure is None and one.not_compared is None
        assert one.milliseconds_per_image > 0 and one.full_milliseconds_per_image > 0


def test_the_plain_network_competes(network, digits, tmp_path):
    """Better than both exits: nothing is written where no thresholds come near it."""
    keras.utils.set_random_seed(1)
    baseline = fit(build(), digits.train.labels, digits, 12)
    package = export.package_early_exit(network, digits, tmp_path, baseline=baseline)
    accuracy = np.mean(
        baseline.predict(normalised(digits.validation), verbose=0).argmax(-1)
        == digits.validation.labels
    )
    plain = package.alone[-1]
    assert (plain.name, plain.cost) == ("baseline", 1.0)
    assert plain.validation_accuracy == pytest.approx(accuracy)
    assert (package.choice.recommended, package.files) == ("baseline", ())
    assert package.classifier is baseline
    assert {path.name for path in tmp_path.iterdir()} == {"early_exit.json", "early_exit.png"}


def test_beaten_points_are_kept_where_asked(packaged, network, digits, tmp_path):
    """Always stopping at exit 1 is that exit alone."""
    package = export.package_early_exit(
        network, digits, tmp_path, quantizations=["float16"], keep_beaten=True
    )
    assert package.operating_points[0].cost == pytest.approx(COSTS[0])
    assert packaged[0].operating_points[0].cost > 1.01 * COSTS[0]


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_file_that_is_wrong_is_not_kept(kind, network, digits, tmp_path, monkeypatch):
    """Of float32 it is an error, of integers a finding."""

    def wrong(path, functions, images, quantization):
        raise parity.ParityError("It is wrong by 0.7")

    monkeypatch.setattr(early_exit, "_check", wrong)
    path = tmp_path / f"early_exit-{kind}.tflite"
    path.write_bytes(b"older")
    arguments = (network, digits, tmp_path)
    options = {"quantizations": [kind], "max_accuracy_drop": MAX_DROP}
    if kind == "float32":
        with pytest.raises(export.ParityError, match=r"wrong by 0\.7"):
            export.package_early_exit(*arguments, **options)
    else:
        (file,) = export.package_early_exit(*arguments, **options).files
        assert (file.exported, file.failure) == (None, "It is wrong by 0.7")
        assert file.test_accuracy is None
    assert not path.exists()


def test_costs_in_milliseconds_are_relative_to_the_plain_networks(network, digits, tmp_path):
    package = export.package_early_exit(
        network, digits, tmp_path, cost_unit="milliseconds", keep_beaten=True
    )
    assert package.alone[-1].cost == 1
    assert list(package.costs) == sorted(package.costs)
    assert 0 < package.alone[0].cost <= package.costs[0]


def test_certified_points_are_tested_on_images_that_chose_nothing(network, digits, tmp_path):
    limit, confidence = 0.05, 0.8
    package = export.package_early_exit(
        *(network, digits, tmp_path),
        quantizations=["float32", "int8"],
        certify=limit,
        confidence=confidence,
    )
    certificate, points = package.certificate, package.operating_points
    count = len(digits.validation)
    chooses = np.zeros(count, bool)
    chooses[np.random.default_rng(0).permutation(count)[: count // 2]] = True
    f = probabilities(network, digits.validation, package.temperatures)
    whole = f[1].argmax(-1)
    for point in points:
        classes, costs = stops(network, digits.validation, package, point.thresholds[0])
        right = classes == digits.validation.labels
        assert point.validation_accuracy == pytest.approx(right[chooses].mean())
        assert point.cost == pytest.approx(costs[chooses].mean())
        differ = int((classes != whole)[~chooses].sum())
        assert stats.binom.cdf(differ, (~chooses).sum(), limit) <= 1 - confidence
    assert package.choice.operating_point == certificate.index == 0
    assert certificate.images == (~chooses).sum()
    assert points[-1].thresholds[0] > 1
    assert points[0].cost < points[-1].cost
    assert str(certificate) in package.choice.verdict
    files = [EarlyExitClassifier(file.path) for file in package.files]
    assert [file.certificate for file in files] == [certificate, None]
    stored = json.loads((tmp_path / "early_exit.json").read_text())["certificate"]
    assert stored == dataclasses.asdict(certificate)

    # The command says the same of the same images.
    images, _ = digits.validation.pixels()
    paths = [tmp_path / f"{number}.png" for number in np.flatnonzero(~chooses)]
    for path, image in zip(paths, images[~chooses], strict=True):
        Image.fromarray(image[..., 0]).save(path)
    options = [f"--limit={limit}", f"--confidence={confidence}"]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        assert main(["certify", str(package.files[0].path), *map(str, paths), *options]) == 0
    assert output.getvalue().startswith("operating point 0 ")
    assert output.getvalue().rstrip().endswith(str(certificate))


def test_too_few_images_certify_nothing(network, digits, tmp_path):
    """And the whole network is exported: of 72 images none may differ for a limit of 3.1%."""
    package = export.package_early_exit(network, digits, tmp_path, certify=0.001)
    assert package.certificate.index is None
    assert (package.files, package.operating_points) == ((), ())
    assert package.choice.recommended == package.choice.alone == "exit_2"
    assert "less than 2,302 images certify nothing" in package.choice.verdict


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"quantizations": []}, "quantizations", "at least one of float32"),
        ({"quantizations": "int8"}, "quantizations", "at least one of float32"),
        ({"quantizations": ["int4"]}, "quantizations", "Near matches: int8"),
        ({"max_accuracy_drop": 1.0}, "max_accuracy_drop", r"in \[0, 1\)"),
        ({"max_accuracy_drop": float("nan")}, "max_accuracy_drop", r"in \[0, 1\)"),
        ({"budget": 0.0}, "budget", r"in \(0, 1\]"),
        ({"certify": 1.0}, "certify", r"in \(0, 1\)"),
        ({"certify": 0.1, "confidence": 0}, "confidence", r"in \(0, 1\)"),
        ({"certify": 0.1, "budget": 0.5}, "budget", "left out beside `certify`"),
        ({"cost_unit": "joules"}, "cost_unit", "one of macs, milliseconds"),
        ({"budget": 1e-3}, "budget", r"at least 0\.\d{4}, the least that any choice costs"),
    ],
)
def test_wrong_arguments_are_named(options, argument, message, network, digits, tmp_path):
    with pytest.raises(ArgumentError, match=message) as caught:
        export.package_early_exit(network, digits, tmp_path / "new", **options)
    assert caught.value.argument == argument
    assert not (tmp_path / "new").exists() or options == {"budget": 1e-3}


@pytest.mark.parametrize(("images", "options"), [(0, {}), (1, {"certify": 0.1})])
def test_too_few_validation_images(images, options, network, digits, tmp_path):
    held_out = digits.validation
    few = dataclasses.replace(
        digits, validation=data.Split(*held_out.pixels(images), held_out.preprocessing)
    )
    message = rf"`data` must have at least {images + 1} validation images. Received: {images}$"
    with pytest.raises(ArgumentError, match=message):
        export.package_early_exit(network, few, tmp_path / "here", **options)
    assert not list(tmp_path.iterdir())


def test_a_network_without_exits_is_refused(digits, tmp_path):
    with pytest.raises(ValueError, match="must be a multi-exit network"):
        export.package_early_exit(build(), digits, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_images_of_a_part_are_of_every_class(monkeypatch):
    """Those of a folder are sorted by class: the first ones are of one class."""
    labels = np.repeat(np.arange(4), 100)
    images = np.broadcast_to(labels[:, None, None, None].astype(np.uint8), (400, 2, 2, 1))
    arrays = data.from_arrays(
        images, labels, validation_data=(images[:1], labels[:1]), test_data=(images, labels)
    )
    writer = early_exit_files.Writer(None, arrays, "macs", None)
    assert set(writer._calibration.ravel()) == {0, 1, 2, 3} and len(writer._calibration) == 200
    monkeypatch.setattr(early_exit_files, "MOST_IMAGES", 8)
    _, tested = early_exit_files._predict([], arrays.test)
    np.testing.assert_array_equal(tested, np.repeat(np.arange(4), 2))
