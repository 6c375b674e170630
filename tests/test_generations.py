"""`train_generations` as a library call, on anyone's network."""

import dataclasses
import errno
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from kdtoolkit import data, files, methods
from kdtoolkit.generations import train_generations
from kdtoolkit.methods import KD, ProbabilityShift, as_methods, described
from kdtoolkit.training import checkpoint, loop
from kdtoolkit.training.schedules import SCHEDULES


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=120)


def build(classes=10, activation="relu"):
    """With a layer that Keras does not load from a file without being told that it may."""
    image = keras.Input((8, 8, 1))
    x = keras.layers.Lambda(lambda x: x * 2.0)(image)
    x = keras.layers.Conv2D(4, 3, activation=activation, name="stage1")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(classes)(x))


def run(digits, output_dir, make=build, **changes):
    options = {"generations": 1, "epochs": 2, "batch_size": 50, "show_progress": False, **changes}
    return train_generations(make, digits, output_dir, schedule=SCHEDULES["digits"], **options)


def test_finished_generations_are_loaded_and_not_trained_again(digits, tmp_path):
    first = run(digits, tmp_path)
    times = [p.stat().st_mtime_ns for p in tmp_path.glob("generation_*/network.keras")]
    second = run(digits, tmp_path)
    assert len(times) == 2
    assert times == [p.stat().st_mtime_ns for p in tmp_path.glob("generation_*/network.keras")]
    for a, b in zip(first, second, strict=True):
        assert a.results == b.results
        for x, y in zip(a.network.get_weights(), b.network.get_weights(), strict=True):
            np.testing.assert_array_equal(x, y)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def copy(*names):
    def do(directory):
        for name in names:
            shutil.copy(directory.parent / "generation_0" / name, directory / name)

    return do


DAMAGES = {
    "flipped results": lambda directory: flip(directory / "results.json"),
    "flipped network": lambda directory: flip(directory / "network.keras"),
    "older results": lambda directory: (directory / "results.json").write_text("{}"),
    "no network": lambda directory: (directory / "network.keras").unlink(),
    "another network": copy("network.keras"),
    "another's results": copy("results.json"),
    "another generation": copy("network.keras", "results.json"),
}


@pytest.fixture(scope="module")
def finished(digits, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("finished") / "run"
    run(digits, output_dir)
    return output_dir


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_the_finished_network_is_set_aside(finished, tmp_path, damage):
    """Training loads nothing, and so trains again, from the last state where that is left."""
    output_dir = shutil.copytree(finished, tmp_path / "run")
    directory = output_dir / "generation_1"
    states = [output_dir / f"generation_{g}" / "checkpoint-00002.state" for g in (0, 1)]
    for state in states:  # which `finish` had no time to drop
        state.write_bytes(b"the last epoch")
    DAMAGES[damage](directory)
    left = {path.name: path.read_bytes() for path in directory.iterdir()}
    settings = loop.Settings(SCHEDULES["digits"], epochs=2, batch_size=50)
    training = loop.Training(directory, settings, generation=1, name="generation_1")
    with pytest.warns(UserWarning, match="generation_1 does not hold what it should"):
        assert training.load(build) is None
    assert left == {p.name.removesuffix(".damaged"): p.read_bytes() for p in directory.iterdir()}
    assert not (directory / "results.json").exists()
    other = loop.Training(output_dir / "generation_0", settings, 0, name="generation_0")
    assert other.load(build) is not None
    assert [state.exists() for state in states] == [False, True]


@pytest.mark.parametrize("number", [errno.EACCES, errno.EMFILE])
def test_what_cannot_be_read_now_is_not_trained_again(finished, tmp_path, number, monkeypatch):
    """Neither the network nor a state is set aside for a permission that is missing."""
    output_dir = shutil.copytree(finished, tmp_path / "run")
    directory = output_dir / "generation_1"
    (directory / "checkpoint-00001.state").write_bytes(b"a state")
    before = sorted(output_dir.rglob("*"))
    settings = loop.Settings(SCHEDULES["digits"], epochs=2, batch_size=50)
    training = loop.Training(directory, settings, generation=1, name="generation_1")

    def read(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(files, "read_bytes", read)
    with pytest.raises(OSError, match=os.strerror(number)):
        training.load(build)
    with pytest.raises(OSError, match=os.strerror(number)):
        checkpoint.Checkpoints(directory)._newest([])
    assert sorted(output_dir.rglob("*")) == before


def test_directory_of_other_arguments_is_refused(digits, tmp_path):
    run(digits, tmp_path, generations=0)
    with pytest.raises(ValueError, match=r"`output_dir`.*seed=0 there, seed=5 here"):
        run(digits, tmp_path, generations=0, seed=5)
    # The weights of the one would fit the other.
    with pytest.raises(ValueError, match=r"`output_dir`.*network=.* there, network=.* here"):
        run(digits, tmp_path, lambda: build(activation="tanh"), generations=0)
    for part in ("train", "validation", "test"):
        split = getattr(digits, part)
        labels = (split.labels + 1) % 10
        other = dataclasses.replace(
            digits, **{part: data.Split(split.images, labels, split.preprocessing)}
        )
        with pytest.raises(ValueError, match=r"`output_dir`.*with data=\w+ there, data=\w+ here$"):
            run(other, tmp_path, generations=0)


def test_one_network_does_not_teach_itself(digits, tmp_path):
    network = build()
    said = r"`build` must be a function that returns a new network each time.*functional.* again"
    with pytest.raises(ValueError, match=said):
        run(digits, tmp_path, lambda: network)


def test_directory_that_another_process_writes_to_is_refused(digits, tmp_path):
    (tmp_path / ".partial-00000000-network.keras").write_text("half")
    with files.locked(tmp_path), ThreadPoolExecutor() as other:
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError, match=f"{tmp_path} is in use"):
            other.submit(run, digits, tmp_path).result()
        assert sorted(tmp_path.iterdir()) == before


def test_directory_that_is_removed_meanwhile_does_not_come_back(digits, tmp_path):
    output_dir, built = tmp_path / "run", []

    def make():
        built.append(output_dir.exists())
        if len(built) == 3:  # an example, generation 0, generation 1
            shutil.rmtree(output_dir)
        return build()

    with pytest.raises(files.LostDirectoryError, match="was removed or replaced"):
        run(digits, output_dir, make)
    assert built == [False, True, True]
    assert not output_dir.exists()


def test_last_validation_batch_smaller_than_the_replicas(tmp_path, two_replicas):
    """129 training images leave 15 to validate, 14 + 1 in batches of 14, on two replicas."""
    digits = data.load("digits", validation_fraction=15 / 1438, train_examples=112)
    assert len(digits.validation) % 14 == 1
    lineage = run(digits, tmp_path, generations=0, batch_size=14, strategy=two_replicas)
    x, y = digits.validation.pixels()
    logits = lineage[0].network.predict(digits.preprocessing(x), batch_size=15, verbose=0)
    expected = (logits.argmax(-1) == y).mean()
    assert lineage[0].results["validation_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"make": lambda: build(9)}, r"`data`.*9\] classes.*10 classes"),
        ({"methods": 0.5}, r"`methods`.*0\.5"),
        ({"generations": -1}, "`generations`.*-1"),
        ({"epochs": 0}, "`epochs` must be a positive integer.*0"),
        ({"batch_size": 0}, "`batch_size` must be a positive integer.*0"),
        ({"top_k": 11}, "`top_k`.*10.*11"),
        ({"top_k": "adaptiv"}, "`top_k` must be an integer of at least 2, or 'adaptive'"),
        ({"top_k": "adaptive", "top_k_share": 2}, "`top_k_share`.*2"),
        ({"methods": "dist", "batch_size": 1}, "`batch_size` must be at least 2 with dist"),
        ({"methods": "swap"}, "`methods`.*probability_shift.*swap"),
    ],
)
def test_errors_name_the_argument(digits, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run(digits, tmp_path, **changes)
    assert not list(tmp_path.iterdir()) or "make" in changes


def test_a_number_of_scores_for_each_image(digits, tmp_path):
    run(digits, tmp_path, generations=0, top_k="adaptive", top_k_share=0.05)
    arguments = json.loads((tmp_path / "generations.json").read_text())
    assert (arguments["top_k"], arguments["top_k_share"]) == ("adaptive", 0.05)
    with pytest.raises(ValueError, match=r"`output_dir`.*top_k_share=0\.05 there"):
        run(digits, tmp_path, generations=0, top_k="adaptive")


def test_every_method_teaches_a_generation(digits, tmp_path):
    """All of the registry at once: one training."""
    chosen = [name for name in methods.names() if issubclass(methods.get(name), methods.Method)]
    lineage = run(digits, tmp_path, generations=1, epochs=1, methods="+".join(chosen))
    arguments = json.loads((tmp_path / "generations.json").read_text())
    assert [own["name"] for own in arguments["methods"][0]] == chosen
    assert np.isfinite(lineage[1].results["test_loss"])


def test_methods_of_each_student(digits, tmp_path):
    """The first student's are the usual ones; lambda and temperature of the second are others."""
    own = KD(0.6, 1.0), KD(0.3, 2.0, corrections=[ProbabilityShift()])
    lineage = run(digits, tmp_path, generations=2, epochs=1, methods=lambda n: own[n - 1])
    plain = run(digits, tmp_path / "plain", generations=2, epochs=1)
    arguments = json.loads((tmp_path / "generations.json").read_text())
    assert arguments["methods"] == [described(as_methods(method)) for method in own]
    for generation, same in enumerate([True, True, False]):
        pairs = zip(
            lineage[generation].network.get_weights(),
            plain[generation].network.get_weights(),
            strict=True,
        )
        assert all(np.array_equal(a, b) for a, b in pairs) == same
