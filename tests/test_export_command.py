"""`kdtoolkit export`: one .keras file that plain Keras loads and that says what it takes."""

import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from kdtoolkit import cli, compression, export, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit.data import Preprocessing, beside
from kdtoolkit.export import parity
from tests.losses.reference import softmax

MEAN, STD = (0.48, 0.45, 0.4), (0.23, 0.22, 0.25)
PREPROCESSING = Preprocessing((8, 8, 3), MEAN, STD)
LABELS = ["cat", "dog", "chèvre", "eel"]
IMAGES = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A multi-exit network with statistics of its own, as a run leaves it."""
    network = models.add_exits(models.build("resnet8", (8, 8, 3), 4), mid=4)
    rng = np.random.default_rng(0)
    network.set_weights([w + rng.random(w.shape) / 10 for w in network.get_weights()])
    path = tmp_path_factory.mktemp("stored") / "network.keras"
    network.save(path)
    beside.write(path, PREPROCESSING, LABELS)
    x = (IMAGES / 255 - MEAN) / STD
    return path, {name: np.asarray(z) for name, z in network.predict(x, verbose=0).items()}


def used(path):
    """What plain Keras returns, with the facts beside the file, as the README says."""
    with zipfile.ZipFile(path) as archive:
        assert "kdtoolkit" not in archive.read("config.json").decode()
    facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert facts["labels"] == LABELS
    x = (IMAGES / 255 - np.array(facts["mean"])) / np.array(facts["std"])
    return keras.models.load_model(path).predict(x, verbose=0)


@pytest.mark.parametrize("exit", ["exit_1", None])
def test_with_preprocessing(stored, exit, tmp_path, capsys):
    path, logits = stored
    output = tmp_path / "bytes.keras"
    flags = [] if exit is None else [f"--exit={exit}"]
    assert (
        cli.main(["export", str(path), "--with_preprocessing", f"--output={output}", *flags]) == 0
    )
    (line,) = capsys.readouterr().out.splitlines()
    assert "images of bytes (8, 8, 3) to probabilities of 4 classes" in line
    # A pixel is off by 2^-24 of itself and of the shift, some 1e-7; a softmax of logits below 10,
    # of a network this shallow, by less than 1e-5.
    expected = softmax(logits[exit or max(logits)])
    network = keras.models.load_model(output)
    assert network.input.dtype == "uint8"
    np.testing.assert_allclose(network.predict(IMAGES, verbose=0), expected, atol=1e-5)
    np.testing.assert_allclose(used(output), expected, atol=1e-5)
    assert isinstance(network.layers[1], layers.Rescaling)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bytes.json", "bytes.keras"]


def test_as_it_is(stored, tmp_path):
    path, logits = stored
    output = tmp_path / "own.keras"
    assert cli.main(["export", str(path), f"--output={output}"]) == 0
    np.testing.assert_allclose(used(output), logits[max(logits)], rtol=1e-5, atol=1e-6)


def test_network_of_anybody_with_mean_and_deviation(tmp_path):
    image = keras.Input((8, 8, 3))
    x = layers.Dense(4, activation="softmax")(layers.Flatten()(image))
    network = keras.Model(image, x)
    network.save(tmp_path / "own.keras")
    arguments = ["export", str(tmp_path / "own.keras"), "--with_preprocessing"]
    output = tmp_path / "bytes.keras"
    given = [f"--mean={','.join(map(str, MEAN))}", f"--std={','.join(map(str, STD))}"]
    assert cli.main([*arguments, f"--output={output}", *given]) == 0
    expected = network.predict((IMAGES / 255 - MEAN) / STD, verbose=0)
    found = keras.models.load_model(output).predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert beside.read(output)[1] == ["0", "1", "2", "3"]


def test_a_sequential_network(tmp_path):
    network = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(4)])
    export.to_keras(network, tmp_path / "bytes.keras", PREPROCESSING)
    found = keras.models.load_model(tmp_path / "bytes.keras").predict(IMAGES, verbose=0)
    logits = network.predict((IMAGES / 255 - MEAN) / STD, verbose=0)
    np.testing.assert_allclose(found, keras.ops.softmax(logits), atol=1e-5)


def test_layers_that_plain_keras_does_not_know(tmp_path):
    image = keras.Input((8, 8, 3))
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(image))
    network = keras.Model(image, layers.Dense(4)(x))
    aware = compression.quantization_aware(network, PREPROCESSING(IMAGES))
    with pytest.raises(ValueError, match=r"Keras' own layers.*Quantized"):
        export.to_keras(aware, tmp_path / "bytes.keras", PREPROCESSING)
    with pytest.raises(ValueError, match=r"`preprocessing`.*\(8, 8, 3\).*\(4, 4, 3\)"):
        export.to_keras(network, tmp_path / "b.keras", Preprocessing((4, 4, 3), MEAN, STD))
    assert list(tmp_path.iterdir()) == []


@keras.saving.register_keras_serializable(package="tests")
def registered(x):
    return 2 * x


def in_scope(x):
    return 2 * x


@pytest.mark.parametrize(
    "layer, reason",
    [
        (layers.Lambda(lambda x: x), "Python lambda"),
        (layers.Activation(registered), "Could not locate function 'tests>registered'"),
        (layers.Activation(in_scope), "Could not locate function 'in_scope'"),
    ],
)
def test_functions_that_plain_keras_does_not_know(layer, reason, tmp_path):
    """Known here, where one is registered and another in a scope."""
    image = keras.Input((8, 8, 3))
    network = keras.Model(image, layers.Dense(4)(layers.Flatten()(layer(image))))
    accepted = "^Argument `network` must have Keras' own layers and functions, .*"
    with keras.saving.custom_object_scope({"in_scope": in_scope}):
        with pytest.raises(ArgumentError, match=f"{accepted}{reason}.*$"):
            export.to_keras(network, tmp_path / "bytes.keras", PREPROCESSING)
        assert keras.saving.get_registered_object("in_scope") is in_scope
    assert keras.saving.get_registered_object("tests>registered") is registered
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_wrong_is_not_kept(stored, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(parity.TOLERANCES, "float32", parity.Tolerance(-1, -1))
    output = tmp_path / "bytes.keras"
    arguments = ["export", str(stored[0]), "--with_preprocessing", f"--output={output}"]
    assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"export: {output} (float32) differs from network ")
    assert list(tmp_path.glob("bytes*")) == []


def test_no_network_lies_beside_the_normalisation_of_another(stored, tmp_path, monkeypatch):
    """Whatever is written, removed or checked when the command is killed."""
    output, written = tmp_path / "out.keras", []
    monkeypatch.setattr(beside, "write", lambda *arguments: written.append(output.exists()))
    flags = [["--with_preprocessing"], []]
    for given in flags:
        output.write_bytes(b"older")
        output.with_suffix(".json").write_text(
            json.dumps({**PREPROCESSING.to_json(), "labels": []})
        )
        assert cli.main(["export", str(stored[0]), f"--output={output}", *given]) == 0
        assert not output.with_suffix(".json").exists()
        assert output.read_bytes() != b"older"
    assert written == [True, True]


def test_what_was_there_outlasts_a_file_that_is_wrong(stored, tmp_path, monkeypatch):
    monkeypatch.setitem(parity.TOLERANCES, "float32", parity.Tolerance(-1, -1))
    output = tmp_path / "out.keras"
    output.write_bytes(b"older")
    beside.write(output, PREPROCESSING, LABELS)
    assert cli.main(["export", str(stored[0]), "--with_preprocessing", f"--output={output}"]) == 1
    assert output.read_bytes() == b"older" and beside.read(output)[1] == LABELS


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["absent.keras", "--output=b.keras"], ["NETWORK must be", "absent.keras"]),
        (["bare.keras"], ["--output"]),
        (["bare.keras", "--output=b.tflite"], ["--output must be a .keras file", "b.tflite"]),
        (["bare.keras", "--output=no/b.keras"], ["directory that exists", "no/b.keras"]),
        (["bare.keras", "--output=b\0.keras"], [".keras file in a directory", r"b\x00.keras"]),
        (["bare.keras", f"--output={300 * 'b'}.keras"], ["--output=bbb", "File name too long"]),
        (["bare.keras", f"--output={300 * 'b'}/b.keras"], ["--output=bbb", "File name too long"]),
        (["bare.keras", "--output=folder.keras"], ["--output must be a file", "folder.keras"]),
        (["bare.keras", "--output=bare.keras"], ["another file than NETWORK"]),
        (["bare.keras", "--output=b.keras"], ["bare.json", "--mean and --std", "neither"]),
        (["bare.keras", "--output=b.keras", "--mean=0"], ["--std", "one of them"]),
        (["bare.keras", "--output=b.keras", "--mean=half"], ["--mean must be numbers", "=half"]),
        (["bare.keras", "--output=b.keras", "--mean=0", "--std=0"], ["--std must be positive"]),
        (["known.keras", "--output=results.keras"], ["would replace", "results.json"]),
        (["deep.keras", "--output=b.keras"], ["deep.json", "does not say"]),
        (["known.keras", "--output=b.keras", "--mean=0", "--std=1"], ["known.json has"]),
        (["damaged.keras", "--output=b.keras"], ["damaged.json", "does not say"]),
    ],
)
def test_mistake_is_one_line_and_status_2(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("bare", "known", "damaged", "deep"):
        (tmp_path / f"{name}.keras").write_bytes(b"")
    beside.write(tmp_path / "known.keras", PREPROCESSING, LABELS)
    for name, text in (("damaged", "{}"), ("deep", "[" * 100_000), ("results", '{"seed": 0}')):
        (tmp_path / f"{name}.json").write_text(text)
    (tmp_path / "folder.keras").mkdir()
    before = set(tmp_path.iterdir())
    assert cli.main(["export", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("export: ")
    for part in parts:
        assert part in line
    assert set(tmp_path.iterdir()) == before


def test_mistakes_do_not_import_tensorflow():
    script = (
        "import sys\nfrom kdtoolkit import cli\n"
        "status = cli.main(['export', 'absent.keras', '--output=b.keras'])\n"
        "sys.exit(10 if 'tensorflow' in sys.modules else status)"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == 2
