"""The associated files, and what is no packaged classifier."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit.edge import Certificate, EarlyExitClassifier
from kdtoolkit.edge.package import Package
from kdtoolkit.export import litert
from kdtoolkit.export.early_exit import to_early_exit
from tests.edge import networks
from tests.edge.networks import IMAGE_SHAPE, OPERATING_POINTS

CERTIFICATE = {
    **{"risk": "disagreement", "limit": 0.01, "confidence": 0.9, "images": 900, "index": 1},
    **{"observed": 0.002, "bound": 0.0089},
}
NO_CERTIFICATES = [
    *({"risk": "luck"}, {"limit": 0}, {"confidence": 1.5}, {"images": 0}, {"images": True}),
    *({"index": None}, {"index": 3}, {"observed": float("nan")}, {"bound": "small"}),
]


def read_files(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def repack(model, path, **changes):
    """Copies a model, with other associated files; None leaves one out."""
    associated = read_files(model) | changes
    with zipfile.ZipFile(model) as archive:
        end = archive.infolist()[0].header_offset
    path.write_bytes(model.read_bytes()[:end])
    with zipfile.ZipFile(path, "a") as archive:
        for name, content in associated.items():
            if content is not None:
                archive.writestr(name, content)
    return path


def edited(model, **changes):
    values = json.loads(read_files(model)["early_exit.json"]) | changes
    return {"early_exit.json": json.dumps({k: v for k, v in values.items() if v is not None})}


def test_zipfile_reads_the_associated_files(model):
    associated = read_files(model)
    assert associated.keys() == {"labels.txt", "early_exit.json"}
    assert associated["labels.txt"].decode() == "ant\nbee\ngroßer Käfer\ndragon fly\n"
    with zipfile.ZipFile(model) as archive:
        flatbuffer = model.read_bytes()[: archive.getinfo("labels.txt").header_offset]
    assert flatbuffer[4:8] == b"TFL3"
    assert json.loads(associated["early_exit.json"]) == {
        "format": 2,
        "crc32": zlib.crc32(flatbuffer),
        "image_shape": [8, 10, 3],
        "exits": ["exit_1", "exit_2", "exit_3"],
        "temperatures": [0.5, 1.5, 2.0],
        "costs": [0.25, 0.5, 1.125],
        "cost_unit": "macs",
        "operating_points": list(OPERATING_POINTS),
        "operating_point": 1,
    }


def test_labels_may_be_edited(model, tmp_path):
    path = repack(model, tmp_path / "model.tflite", **{"labels.txt": "A\nB\nC\nD"})
    classifier = EarlyExitClassifier(path)
    assert classifier.labels == ("A", "B", "C", "D")
    image = np.zeros(IMAGE_SHAPE, np.uint8)
    assert classifier.predict(image)[1:4] == EarlyExitClassifier(model).predict(image)[1:4]


def assert_refused(path, cause):
    with pytest.raises(ValueError) as refused:
        EarlyExitClassifier(path)
    message = str(refused.value)
    assert message.startswith(f"Cannot use {str(path)!r} as a classifier: ")
    assert cause in message and "\n" not in message


def test_no_file(tmp_path):
    assert_refused(tmp_path / "none.tflite", "No such file or directory")
    assert_refused(tmp_path, "Is a directory")


def test_no_associated_files(model, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(b"")
    assert_refused(path, "no readable labels.txt and early_exit.json")
    path.write_text("no model at all")
    assert_refused(path, "no readable labels.txt and early_exit.json")
    path.write_bytes(model.read_bytes()[:-300])
    assert_refused(path, "cut short")
    repack(model, path, **{"labels.txt": None})
    assert_refused(path, "no readable labels.txt and early_exit.json")


def test_foreign_zip(tmp_path):
    path = tmp_path / "model.tflite"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.txt", "a\nb\n")
        archive.writestr("early_exit.json", "{}")
    assert_refused(path, "is not of format 1 or 2 or 3")


@pytest.mark.parametrize("position", [0, 5, 1000, -1500, -40])
def test_one_bit_of_damage_is_noticed(model, tmp_path, position):
    content = bytearray(model.read_bytes())
    content[position] ^= 4
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert_refused(path, "")


def test_damaged_weights_are_never_run(model, tmp_path):
    content = bytearray(model.read_bytes())
    # A weight of the last dense layer, wherever the converter put it.
    kernel = networks.build_stages()[-1].layers[-1].kernel.numpy().T.tobytes()
    content[content.index(kernel)] ^= 1
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert_refused(path, "its bytes are damaged")


@pytest.mark.parametrize(
    "changes, cause",
    [
        ({"format": 4}, "not of format 1 or 2 or 3"),
        ({"costs": None}, "costs"),
        ({"colour": "red"}, "colour"),
        ({"costs": 3}, "Argument `costs` must be 3 positive numbers"),
        ({"exits": 3}, "not iterable"),
        ({"temperatures": [1, 1]}, "Argument `temperatures` must be 3 positive numbers"),
        ({"operating_points": [{"thresholds": [1, 1]}]}, "Argument `operating_points` must be"),
    ],
)
def test_early_exit_json_is_checked(model, tmp_path, changes, cause):
    assert_refused(repack(model, tmp_path / "model.tflite", **edited(model, **changes)), cause)


def test_a_file_of_the_first_format_is_read(model, tmp_path):
    """Its costs are relative to the last exit's, and its decisions are the same."""
    older = edited(model, format=1, costs=[0.25, 0.5, 1.0])
    classifier = EarlyExitClassifier(repack(model, tmp_path / "model.tflite", **older))
    assert classifier.costs == (0.25, 0.5, 1.0)
    images = list(networks.draw_images(4))
    decisions = [prediction[:4] for prediction in classifier.predict(images)]
    assert decisions == [
        prediction[:4] for prediction in EarlyExitClassifier(model).predict(images)
    ]


def test_files_that_do_not_fit_the_graph(model, tmp_path):
    path = tmp_path / "model.tflite"
    repack(model, path, **{"labels.txt": "\n".join("abcde")})
    assert_refused(path, "has 5 labels, but logits of 4 classes")
    more = {
        "exits": ["1", "2", "3", "4"],
        "temperatures": [1] * 4,
        "costs": [0.1, 0.2, 0.3, 1],
        "operating_points": [OPERATING_POINTS[0] | {"thresholds": [0, 0, 0]}],
        "operating_point": 0,
    }
    repack(model, path, **edited(model, **more))
    assert_refused(path, "stage_4")
    repack(model, path, **edited(model, image_shape=[16, 20, 3]))
    assert_refused(path, "image_shape")


ATTRIBUTES = {
    **networks.ATTRIBUTES,
    "image_shape": IMAGE_SHAPE,
    "exits": networks.EXITS,
    "cost_unit": "macs",
}


@pytest.mark.parametrize(
    "name, value",
    [
        ("labels", ["only one"]),
        ("labels", ["two\nlines", "b"]),
        ("labels", ["", "b"]),
        ("labels", [1, 2]),
        ("image_shape", (8, 10)),
        ("image_shape", (8, 10, 4)),
        ("image_shape", (8, None, 3)),
        ("exits", []),
        ("temperatures", [1.0, 1.0]),
        ("temperatures", [1.0, 1.0, 0.0]),
        ("temperatures", [1.0, 1.0, float("nan")]),
        ("costs", [0.5, 0.25, 1.0]),
        ("costs", [0.0, 0.5, 1.0]),
        ("operating_points", []),
        ("operating_points", OPERATING_POINTS[::-1]),
        ("operating_points", [{"thresholds": [0.5, 0.5], "cost": 1}]),
        ("operating_point", 3),
        *(("certificate", {**CERTIFICATE, **change}) for change in NO_CERTIFICATES),
        ("certificate", {key: value for key, value in CERTIFICATE.items() if key != "bound"}),
    ],
)
def test_attributes_are_checked(name, value):
    with pytest.raises(ValueError, match=f"^Argument `{name}` must be .* Received: "):
        Package(**ATTRIBUTES | {name: value})


def test_certificate_is_carried(model, stages, tmp_path):
    """And a runtime that knows no certificates refuses the file; it reads those without one."""
    path = tmp_path / "model.tflite"
    attributes = {**networks.ATTRIBUTES, "certificate": CERTIFICATE}
    to_early_exit(stages, path, networks.PREPROCESSING, **attributes)
    assert EarlyExitClassifier(path).certificate == Certificate(**CERTIFICATE)
    assert EarlyExitClassifier(model).certificate is None

    def number(file):
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read("early_exit.json"))["format"]

    assert (number(path), number(model)) == (3, 2)


def test_operating_points_are_mappings_or_objects():
    package = Package(**ATTRIBUTES)
    assert package.operating_points[1].thresholds == (0.99, 0.69)
    assert package == Package(**ATTRIBUTES | {"operating_points": package.operating_points})


_BLOCKED = """
import sys
for name in ("tensorflow", "keras", "tf_keras", "absl", "PIL", "scipy"):
    sys.modules[name] = None
import numpy as np
from kdtoolkit.edge import Certificate, EarlyExitClassifier
print(EarlyExitClassifier(sys.argv[1]).predict(np.load(sys.argv[2]))[:4])
"""


def test_runs_where_there_is_no_tensorflow(model, tmp_path):
    image = networks.draw_images(1)[0]
    np.save(tmp_path / "image.npy", image)
    ran = subprocess.run(
        [sys.executable, "-c", _BLOCKED, model, tmp_path / "image.npy"],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == str(EarlyExitClassifier(model).predict(image)[:4])


def zeros(model, path, name, size):
    """Copies a model, with a deflated file of zeros in place of one of its own."""
    content = bytes(size)
    repack(model, path, **{name: None})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return path


def hiding(path, name, size):
    """Makes a file of a zip claim another size than it has."""
    with zipfile.ZipFile(path) as archive:
        claimed = struct.pack("<I", archive.getinfo(name).file_size)
    path.write_bytes(path.read_bytes().replace(claimed, struct.pack("<I", size)))
    return path


@pytest.mark.parametrize("name", ["labels.txt", "early_exit.json"])
def test_associated_files_that_expand(model, tmp_path, name):
    path = zeros(model, tmp_path / "model.tflite", name, 2**26 + 12345)
    for hide in (False, True):
        if hide:
            hiding(path, name, 100)
        tracemalloc.start()
        assert_refused(path, "no readable labels.txt and early_exit.json")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**24


def test_a_graph_of_more_memory_than_small_devices_have(tmp_path):
    @tf.function
    def run(image):
        pixels = tf.repeat(tf.repeat(tf.cast(image, tf.float32), 4000, axis=1), 4000, axis=2)
        return {"logits": tf.reduce_mean(pixels, axis=(1, 2)) @ tf.ones((3, 2))}

    function = run.get_concrete_function(tf.TensorSpec((1, 8, 10, 3), tf.uint8, "image"))
    path = tmp_path / "model.tflite"
    path.write_bytes(litert.convert({"stage_1": function}, "float32", None))
    alone = {
        "labels": ["a", "b"],
        "exits": ["exit_1"],
        "temperatures": [1.0],
        "costs": [1.0],
        "operating_points": [{"thresholds": [], "validation_accuracy": 0.5, "cost": 1.0}],
        "operating_point": 0,
    }
    Package(**ATTRIBUTES | alone).append(path)
    assert path.stat().st_size < 10_000
    assert_refused(path, "bytes together. Accepted: 2,147,483,648, the larger of ")


def test_a_large_graph_of_a_large_file_is_no_bomb(model, monkeypatch):
    """Its tensors are in proportion to its weights: no file is too large for being large."""
    monkeypatch.setattr("kdtoolkit.edge.opening._LARGE", 0)
    EarlyExitClassifier(model)
    monkeypatch.setattr("kdtoolkit.bounded.MOST_EXPANSION", 1)
    assert_refused(model, f"Accepted: {model.stat().st_size:,}, ")


def test_a_fifo_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.tflite")
    assert_refused(tmp_path / "model.tflite", "Not a regular file")


def test_parts_that_claim_more_bytes_than_there_are(model, tmp_path):
    content = bytearray(model.read_bytes())
    entry = content.rindex(b"PK\1\2")  # of the last part, in the central directory
    content[entry + 20 : entry + 28] = struct.pack("<II", 2**19, 2**19)
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"or is cut short: (EOFError$|Overlapped entries)"):
        EarlyExitClassifier(path)
