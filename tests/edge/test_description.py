"""What a .tflite file holds, in Python and by `kdtoolkit describe`."""

import dataclasses
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import cli, export
from kdtoolkit.edge.description import Tensor, describe
from kdtoolkit.export.early_exit import to_early_exit
from tests.edge import networks


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 10, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, padding="same")(image))
    return keras.Model(image, keras.layers.Dense(4)(x))


@pytest.fixture(scope="module")
def classifier(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("described") / "student.tflite"
    about = export.About(name="insects", author="A.\nNt", license="Apache-2.0")
    export.to_litert(network, path, networks.PREPROCESSING, labels=networks.LABELS, about=about)
    return path


def test_a_classifier(classifier):
    found = describe(classifier)
    assert (found.path, found.bytes) == (str(classifier), classifier.stat().st_size)
    assert (found.files, found.labels) == (("labels.txt",), networks.LABELS)
    assert found.metadata["author"] == "A.\nNt" and found.early_exit is None
    (graph,) = found.graphs
    assert graph.takes == (Tensor("image", "uint8", (1, 8, 10, 3)),)
    assert graph.returns == (Tensor("probabilities", "float32", (1, 4)),)
    assert (graph.name, graph.operators["CONV_2D"]) == ("serving_default", 1)
    # LiteRT's own list, without the operator that a delegate is.
    litert = Interpreter(str(classifier))._get_ops_details()
    names = [each["op_name"] for each in litert if each["op_name"] != "DELEGATE"]
    assert sorted(names) == sorted(graph.operators.elements())
    # The image, its pixels normalised as floats, and the convolution's output.
    assert graph.activation_bytes == 240 + 4 * 240 + 4 * 480


def test_integers(network, tmp_path):
    path = tmp_path / "student.tflite"
    images = networks.draw_images(4)
    export.to_litert(network, path, networks.PREPROCESSING, "uint8", images)
    found = describe(path)
    assert (found.files, found.labels) == ((), ())
    (graph,) = found.graphs
    assert graph.takes == (Tensor("image", "uint8", (1, 8, 10, 3), 1.0, 0),)
    assert graph.returns == (Tensor("probabilities", "uint8", (1, 4), 1 / 256, 0),)


def test_stages(model):
    found = describe(model)
    assert [graph.name for graph in found.graphs] == ["stage_1", "stage_2", "stage_3"]
    assert [graph.takes[0].name for graph in found.graphs] == ["image", "features", "features"]
    assert {tensor.name for tensor in found.graphs[0].returns} == {"logits", "features"}
    assert found.early_exit.exits == networks.EXITS
    # Features of 8x10x6 come in, 4x5x8 go out, and their mean and the logits are there too.
    second = found.graphs[1].activation_bytes
    assert second == 4 * (480 + 160 + 8 + 4)


def test_a_file_that_says_nothing_of_itself(tmp_path):
    """Of somebody else: a function without signature names, labels or metadata."""
    import tensorflow as tf

    add = tf.function(lambda x: x + tf.ones((2, 3))).get_concrete_function(tf.TensorSpec((2, 3)))
    path = tmp_path / "add.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([add]).convert())
    found = describe(path)
    assert (found.metadata, found.files, found.labels) == (None, (), ())
    (graph,) = found.graphs
    assert (graph.operators, graph.activation_bytes) == ({"ADD": 1}, 48)
    assert [(each.dtype, each.shape) for each in graph.takes] == [("float32", (2, 3))]


def test_text(classifier, model, capsys):
    assert cli.main(["describe", str(classifier)]) == 0
    assert capsys.readouterr().out == (
        f"{classifier}: {classifier.stat().st_size:,} bytes\n"
        "name         insects\n"
        "description  Classifies RGB images of 8x10 into 4 classes.\n"
        "author       A.\\nNt\n"
        "license      Apache-2.0\n"
        "pixels       as they are\n"
        "labels       4: ant, bee, großer Käfer, ...\n"
        "files        labels.txt\n"
        "\n"
        "serving_default\n"
        "  takes      image: uint8 1x8x10x3\n"
        "  returns    probabilities: float32 1x4\n"
        "  operators  7: 1 CAST, 1 MUL, 1 SUB, 1 CONV_2D, 1 MEAN, 1 FULLY_CONNECTED, 1 SOFTMAX\n"
        "  memory     3,120 bytes of activations at the same time\n"
    )
    assert cli.main(["describe", str(model)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "exits        3: exit_1, exit_2, exit_3" in shown
    assert "points       3 operating points; 1 is the default" in shown


_BLOCKED = """
import sys
for name in ("tensorflow", "keras", "tf_keras", "absl", "PIL", "scipy", "rich"):
    sys.modules[name] = None
from kdtoolkit import cli
sys.exit(cli.main(["describe", sys.argv[1]]))
"""


def test_runs_where_there_is_no_tensorflow(model):
    ran = subprocess.run([sys.executable, "-c", _BLOCKED, model], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "stage_3" in ran.stdout


def refused(path, capsys):
    assert cli.main(["describe", str(path)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == "" and line.startswith(f"describe: Cannot read '{path}' as a .tflite")
    return line


def test_mistakes(model, tmp_path, capsys):
    path = tmp_path / "a.tflite"
    for content, cause in (
        (b"", "file"),
        (b"no model at all, of no kind", "file"),
        (model.read_bytes()[:2000], "file"),
    ):
        path.write_bytes(content)
        assert cause in refused(path, capsys)
    path.write_bytes(model.read_bytes()[:-30])
    assert cli.main(["describe", str(path)]) == 0  # a graph, whose zip is cut off
    assert "\nmissing      labels.txt, which the metadata names\n" in capsys.readouterr().out
    assert cli.main(["describe", str(model), "--exits"]) == 2
    assert "--exits is for networks" in capsys.readouterr().err


def test_one_bit_of_damage_is_an_error_of_one_line(model, tmp_path, capsys):
    """Every byte of an early-exit file is under its checksum, or that of the zip."""
    rng, path = np.random.default_rng(0), tmp_path / "a.tflite"
    for _ in range(100):
        content = bytearray(model.read_bytes())
        content[rng.integers(len(content) - 500)] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        refused(path, capsys)


def test_certificate(stages, tmp_path, capsys):
    path = tmp_path / "model.tflite"
    certificate = {
        **{"risk": "disagreement", "limit": 0.01, "confidence": 0.9, "images": 900, "index": 1},
        **{"observed": 0.002, "bound": 0.0089},
    }
    attributes = {**networks.ATTRIBUTES, "certificate": certificate}
    to_early_exit(stages, path, networks.PREPROCESSING, **attributes)
    assert dataclasses.asdict(describe(path).early_exit.certificate) == certificate
    assert cli.main(["describe", os.fspath(path)]) == 0
    assert "\ncertified    with 90% confidence" in capsys.readouterr().out
