"""`compare` as a library call: rows, networks, the directory, and what is refused."""

import json
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from scipy import special

from kdtoolkit import comparison, data, files, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit.comparison import compare
from kdtoolkit.methods import KD, Way
from kdtoolkit.training import Transfer
from kdtoolkit.training.schedules import SCHEDULES


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=120)


def resnet8():
    return models.build("resnet8", (8, 8, 1), 10)


def staged(width=1):
    """A small one with stages of the same places as those of a ResNet."""
    x = image = keras.Input((8, 8, 1))
    for stage, (channels, stride) in enumerate(((4, 1), (8, 2), (8, 2)), start=1):
        x = keras.layers.Conv2D(width * channels, 3, stride, padding="same")(x)
        x = keras.layers.ReLU(name=f"stage{stage}")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10)(x))


def small(classes=10):
    image = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes)(x))


def run(digits, output_dir, build=small, **changes):
    options = {"epochs": 1, "batch_size": 50, "show_progress": False, **changes}
    return compare(build, digits, output_dir, schedule=SCHEDULES["digits"], **options)


def normalised(split):
    """The images as a network takes them, by the formula, in float64."""
    images = split.images / 255.0 - np.asarray(split.preprocessing.mean)
    return (images / np.asarray(split.preprocessing.std)).astype("float32")


def accuracy(network, split):
    logits = network.predict(normalised(split), verbose=0)
    logits = logits["exit_3"] if isinstance(logits, dict) else logits
    return (logits.argmax(-1) == split.labels).mean(), logits


def same(network, other):
    pairs = zip(network.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def compared(digits, tmp_path_factory):
    """Every kind of way, by a teacher that is trained first."""
    output_dir = tmp_path_factory.mktemp("compared") / "run"
    ways = ("plain", "kd+attention", "mutual", "deep_supervision", "self_distillation")
    options = {"teacher": lambda: staged(2), "teacher_epochs": 2, "teacher_seed": 7, "peer": small}
    return output_dir, run(digits, output_dir, staged, ways=ways, **options)


def test_figures_are_those_of_the_networks(compared, digits):
    _, result = compared
    assert [(row["method"], row["seed"]) for row in result.rows] == list(result.networks)
    everyone = [*zip(result.rows, result.networks.values(), strict=True)]
    for row, network in [*everyone, (result.teacher_results, result.teacher)]:
        right, logits = accuracy(network, digits.test)
        assert row["test_accuracy"] == pytest.approx(right)
        assert row["validation_accuracy"] == pytest.approx(accuracy(network, digits.validation)[0])
        truth = special.log_softmax(logits.astype("float64"), axis=-1)[
            np.arange(len(logits)), digits.test.labels
        ]
        assert row["test_loss"] == pytest.approx(-truth.mean(), rel=1e-4)
    best = max(result.rows, key=lambda row: row["validation_accuracy"])
    assert result.best == best
    assert accuracy(result.best_network, digits.test)[0] == pytest.approx(best["test_accuracy"])
    assert result.best_network.output_shape == (None, 10)


def test_directory_holds_the_networks(compared):
    output_dir, result = compared
    names = {f"{way}/seed_{seed}": network for (way, seed), network in result.networks.items()}
    for name, network in {**names, "teacher": result.teacher}.items():
        stored = keras.models.load_model(output_dir / name / "network.keras")
        assert same(stored, network)
        assert (output_dir / "logs" / name / "train").is_dir()
    assert {path.name for path in files.contents(output_dir)} == {
        *("comparison.json", "logs", "teacher"),
        *(way for way, _ in result.networks),
    }


def test_finished_students_are_loaded_and_not_trained_again(digits, tmp_path):
    teacher = small()
    options = {"teacher": teacher, "ways": ["plain", Way("softer", KD(0.5, 8.0))], "seeds": (1, 2)}
    first = run(digits, tmp_path, **options)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/network.keras")}
    assert len(times) == 4
    (tmp_path / "softer" / "seed_2" / "results.json").unlink()  # killed before it was finished
    second = run(digits, tmp_path, **options)
    written = [path for path in times if path.stat().st_mtime_ns != times[path]]
    assert written == [tmp_path / "softer" / "seed_2" / "network.keras"]
    assert first.rows[:3] == second.rows[:3]
    for key, network in first.networks.items():
        assert same(network, second.networks[key])
    stored = json.loads((tmp_path / "comparison.json").read_text())
    assert stored["ways"][1]["methods"][0]["temperature"] == 8.0

    for changes, differs in (
        ({"seeds": (1, 3)}, r"seeds=\[1, 2\] there, seeds=\[1, 3\] here"),
        ({"teacher": small()}, "teacher='?[0-9a-f]{64}'? there, teacher=[0-9a-f]{64} here"),
        ({"ways": ["plain", Way("softer", KD(0.5, 9.0))]}, "ways=.*8.0.* there, ways=.*9.0"),
    ):
        with pytest.raises(files.OtherRunError, match=f"`output_dir`.*{differs}"):
            run(digits, tmp_path, **{**options, **changes})


def test_cached_teacher_says_what_it_says_in_every_step(digits, tmp_path):
    """As many views as epochs, of the students' seed: they see what they see without views."""
    teacher, options = small(), {"ways": ["plain", "kd"], "seeds": (3,), "epochs": 2}
    fresh = run(digits, tmp_path / "fresh", teacher=teacher, **options)
    cached = run(
        *(digits, tmp_path / "cached"), teacher=teacher, cached_views=2, teacher_seed=3, **options
    )
    assert same(fresh.networks["plain", 3], cached.networks["plain", 3])
    for a, b in zip(
        fresh.networks["kd", 3].get_weights(), cached.networks["kd", 3].get_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=2e-3)  # of float16
    (directory,) = files.contents(tmp_path / "cached" / "teacher_cache")
    assert (directory / "logits.npy").stat().st_size == 128 + 2 * 2 * 120 * 10


def test_seeds_make_different_students(digits, tmp_path):
    result = run(digits, tmp_path, ways=["plain"], seeds=(1, 2))
    assert result.teacher is result.teacher_results is None
    assert not same(*result.networks.values())


def test_claim_holds_the_directory_and_arguments_are_compared_all_the_same(digits, tmp_path):
    seen = []
    options = {"ways": ["plain"], "claim": lambda: seen.append(len(list(tmp_path.iterdir())))}
    run(digits, tmp_path, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"comparison.json", "plain", "logs"}
    with pytest.raises(files.OtherRunError, match=r" data=[0-9a-f]{64} there, data="):
        run(data.load("digits", train_examples=119), tmp_path, **options)
    assert seen == [0, 3]


def test_directory_that_another_thread_writes_to_is_refused(digits, tmp_path):
    with (
        files.locked(tmp_path),
        ThreadPoolExecutor() as other,
        pytest.raises(files.InUseError, match=f"{tmp_path} is in use"),
    ):
        other.submit(run, digits, tmp_path, ways=["plain"]).result()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("changes", "argument", "message"),
    [
        ({}, "teacher", "`teacher` must be given for the ways that have one, kd"),
        ({"ways": ["kdd"]}, "methods", "kdd.*Near matches: kd"),
        ({"ways": []}, "ways", "`ways` must be of different names"),
        ({"ways": ["plain"], "seeds": (1, 1)}, "seeds", "different integers"),
        ({"ways": ["plain"], "seeds": ()}, "seeds", "different integers"),
        ({"ways": ["plain"], "epochs": 0}, "epochs", "positive integer"),
        ({"ways": ["kd"], "teacher": small, "teacher_epochs": 0}, "teacher_epochs", "positive"),
        ({"ways": ["plain"], "cached_views": 2}, "cached_views", "None where no way has a teach"),
        ({"ways": ["fitnet"], "teacher": resnet8}, "layers", "no layers stage1.*in common"),
        ({"ways": ["rkd"], "teacher": small, "batch_size": 1}, "batch_size", "2 with rkd"),
        (
            {"ways": ["embedding"], "build": staged, "teacher": lambda: staged(2)},
            "methods",
            "without embedding where .* channels.*8 of the student, 16 of the teacher",
        ),
        ({"ways": ["kd"], "teacher": lambda: small(9)}, None, "`data`.*9.*10 classes"),
        ({"ways": ["plain"], "build": lambda: small(9)}, None, "`data`.*9.*10 classes"),
        ({"ways": ["mutual"], "peer": lambda: small(9)}, None, "output_shape"),
        ({"teacher": small, "cached_views": 0}, None, "`count`"),
    ],
)
def test_nothing_is_written_before_all_is_checked(digits, tmp_path, changes, argument, message):
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        run(digits, tmp_path / "run", **changes)
    if argument is not None:
        assert isinstance(caught.value, ArgumentError)
        assert caught.value.argument == argument
    assert not (tmp_path / "run").exists()


def test_summary_by_hand():
    figures = {"plain": (0.5, 0.6), "kd": (0.55, 0.75), "one": (0.5,)}
    rows = [
        {
            "method": method,
            "seed": seed,
            "test_accuracy": value,
            "validation_accuracy": value + 0.1,
            "seconds": 2.0 * seed,
        }
        for method, values in figures.items()
        for seed, value in enumerate(values, start=1)
    ]
    plain, kd, one = comparison.summarise(rows)
    assert (plain["method"], plain["runs"], plain["gain"]) == ("plain", 2, None)
    assert plain["test_accuracy"] == pytest.approx(0.55)
    assert plain["test_accuracy_deviation"] == pytest.approx(0.1 / 2**0.5)
    assert kd["gain"] == pytest.approx((0.05 + 0.15) / 2)
    assert kd["validation_accuracy"] == pytest.approx(0.75)
    assert kd["seconds"] == 3.0
    assert (one["test_accuracy_deviation"], one["gain"]) == (None, 0.0)


def test_students_and_teacher_that_start_from_trained_weights(digits, tmp_path):
    """Both begin with the same kernels, which are frozen."""

    def build():
        network = small()
        kernel = network.layers[1].kernel
        kernel.assign(np.linspace(-1, 1, kernel.numpy().size).reshape(kernel.shape))
        return network

    options = {"teacher": build, "teacher_transfer": Transfer(1), "transfer": Transfer(1)}
    result = run(digits, tmp_path / "run", build, ways=("kd",), **options)
    for network in (result.teacher, *result.networks.values()):
        assert np.array_equal(network.layers[1].kernel, build().layers[1].kernel)
        assert np.any(network.layers[-1].bias)
    with pytest.raises(files.OtherRunError, match=r"transfer=Transfer\(freeze_epochs=1, .* there"):
        run(digits, tmp_path / "run", build, ways=("kd",), **{**options, "transfer": None})
    with pytest.raises(ValueError, match="at most the number of epochs, 1"):
        run(digits, tmp_path / "two", build, **{**options, "teacher_transfer": Transfer(2)})
