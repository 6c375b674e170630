"""Runtimes in other languages: those in C++ and Kotlin against Python's, all against the package.

That of Kotlin runs with a stand-in for LiteRT, which returns the logits that Python computes. It
needs `kotlinc`, `kotlin` and Android's org.json, whose jar `KDTOOLKIT_TEST_ORG_JSON` names; the
default is that of Debian's libandroid-json-java.
"""

import json
import os
import re
import shutil
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kdtoolkit.edge import EarlyExitClassifier, associated
from kdtoolkit.edge.package import EARLY_EXIT
from kdtoolkit.export.early_exit import to_early_exit
from tests.edge import networks

HERE = Path(__file__).parent / "native"
NATIVE = Path(find_spec("kdtoolkit").origin).parent / "edge" / "native"
IMAGES = networks.draw_images(100)


def installed(package, *parts):
    """A file of an installed package, which is not imported."""
    spec = find_spec(package)
    return Path(spec.origin).parent.joinpath(*parts) if spec else Path("none")


LITERT = installed("ai_edge_litert", "libLiteRt.so")
JSON = installed(
    *("tensorflow", "include", "external", "cudnn_frontend_archive", "include"),
    *("cudnn_frontend", "thirdparty"),
)

ORG_JSON = Path(os.environ.get("KDTOOLKIT_TEST_ORG_JSON", "/usr/share/java/json-android.jar"))


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`predict.cpp`, compiled with early_exit.hpp and linked with LiteRT."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not (compiler and LITERT.exists() and (JSON / "nlohmann" / "json.hpp").exists()):
        pytest.skip("needs a C++ compiler, libLiteRt.so and nlohmann/json")
    directory = tmp_path_factory.mktemp("native")
    headers = directory / "litert" / "c"
    headers.mkdir(parents=True)
    for line in (NATIVE / "early_exit.hpp").read_text().splitlines():
        if line.startswith('#include "litert/'):
            (directory / line.split('"')[1]).write_text('#include "litert.h"\n')
    path = directory / "predict"
    command = [compiler, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-o", path]
    command += [HERE / "predict.cpp", LITERT, f"-Wl,-rpath,{LITERT.parent}"]
    command += ["-I", directory, "-I", HERE, "-I", NATIVE, "-isystem", JSON]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    return path


@pytest.fixture(scope="module")
def kotlin(tmp_path_factory):
    """Command of `Predict.kt`, compiled with EarlyExitClassifier.kt and the stand-in."""
    compiler, runner = shutil.which("kotlinc"), shutil.which("kotlin")
    if not (compiler and runner and ORG_JSON.exists()):
        pytest.skip("needs kotlinc, kotlin and org.json")
    directory = tmp_path_factory.mktemp("kotlin")
    sources = [NATIVE / "EarlyExitClassifier.kt", *HERE.glob("*.kt")]
    command = [compiler, "-cp", ORG_JSON, "-d", directory, *sources]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    return [runner, "-cp", f"{directory}{os.pathsep}{ORG_JSON}", "PredictKt"]


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels") / "images"
    path.write_bytes(IMAGES.tobytes())
    return path


def predict(*command):
    return subprocess.run(command, capture_output=True, text=True)


def assert_decides_as(classifier, ran):
    """A program's lines are what a classifier of Python says of the images."""
    assert ran.returncode == 0, ran.stderr
    lines = [line.split("\t") for line in ran.stdout.splitlines()]
    expected = classifier.predict(IMAGES)
    assert [(label, int(index), name) for label, index, _, name in lines] == [
        (p.label, p.index, p.exit) for p in expected
    ]
    confidences = [float(confidence) for _, _, confidence, _ in lines]
    np.testing.assert_allclose(confidences, [p.confidence for p in expected], atol=1e-5)


@pytest.mark.parametrize("quantization", ["float32", "int8"])
@pytest.mark.parametrize("point", [0, 1, 2])
def test_decisions_of_cpp_are_those_of_python(
    program, pixels, stages, tmp_path, quantization, point
):
    path = tmp_path / "model.tflite"
    to_early_exit(
        *(stages, path, networks.PREPROCESSING),
        **networks.ATTRIBUTES,
        quantization=quantization,
        calibration=IMAGES,
    )
    classifier = EarlyExitClassifier(path)
    classifier.operating_point = point
    assert_decides_as(classifier, predict(program, path, pixels, str(point)))


@pytest.mark.parametrize("point", [0, 1, 2])
def test_decisions_of_kotlin_are_those_of_python_from_the_same_logits(
    kotlin, model, tmp_path, point
):
    classifier = EarlyExitClassifier(model)
    classifier.operating_point = point
    logits = tmp_path / "logits"
    logits.write_bytes(classifier.logits(IMAGES).tobytes())
    assert_decides_as(classifier, predict(*kotlin, model, logits, str(point)))


def repackaged(model, path, **changes):
    """Writes a model whose early_exit.json says something else, with all checksums right."""
    with zipfile.ZipFile(model) as archive:
        files = {name: archive.read(name).decode() for name in archive.namelist()}
        end = min(info.header_offset for info in archive.infolist())
    files[EARLY_EXIT] = json.dumps(json.loads(files[EARLY_EXIT]) | changes)
    path.write_bytes(model.read_bytes()[:end])
    associated.append(path, files)


MISFITS = [
    {"exits": [], "temperatures": []},
    {"temperatures": [1.0, 1.0]},
    {"operating_point": 3},
    {"operating_points": [{"thresholds": [0.5], "validation_accuracy": 0.5, "cost": 1.0}]},
]


@pytest.mark.parametrize("changes", MISFITS, ids=lambda changes: next(iter(changes)))
def test_cpp_refuses_parts_that_do_not_fit(program, pixels, model, tmp_path, changes):
    repackaged(model, tmp_path / "model.tflite", **changes)
    ran = predict(program, tmp_path / "model.tflite", pixels)
    assert ran.returncode == 1 and "do not fit each other" in ran.stderr


@pytest.mark.parametrize("changes", MISFITS, ids=lambda changes: next(iter(changes)))
def test_kotlin_refuses_parts_that_do_not_fit(kotlin, pixels, model, tmp_path, changes):
    repackaged(model, tmp_path / "model.tflite", **changes)
    ran = predict(*kotlin, tmp_path / "model.tflite", pixels, "0")
    assert ran.returncode == 1 and "do not fit each other" in ran.stderr


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"TFL3", b"TFL4", "model.tflite is damaged"),
        (b"bee\n", b"bum\n", "labels.txt is damaged"),
        (b"0.99", b"0.09", "early_exit.json is damaged"),
        (b"PK\5\6", b"PK\5\7", "ZipException"),
    ],
)
def test_kotlin_refuses_what_is_damaged(kotlin, pixels, model, tmp_path, old, new, message):
    path, whole = tmp_path / "model.tflite", model.read_bytes()
    assert old in whole
    path.write_bytes(whole.replace(old, new))
    ran = predict(*kotlin, path, pixels, "0")
    assert ran.returncode == 1 and message in ran.stderr


def test_cpp_refuses_what_is_damaged(program, pixels, model, tmp_path):
    path, whole = tmp_path / "model.tflite", model.read_bytes()
    path.write_bytes(whole[: whole.index(b"PK\3\4")])
    assert "no zip behind its graph" in predict(program, path, pixels).stderr
    path.write_bytes(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    assert "its bytes are damaged" in predict(program, path, pixels).stderr
    path.write_bytes(whole.replace(b"bee\n", b"bum\n"))
    assert "labels.txt is damaged" in predict(program, path, pixels).stderr
    assert "cannot open" in predict(program, tmp_path / "none", pixels).stderr
    assert predict(program, path, pixels).returncode == 1


def test_cpp_survives_a_file_cut_short(program, pixels, model, tmp_path):
    path, whole = tmp_path / "model.tflite", model.read_bytes()
    for count in range(1, 200, 20):
        path.write_bytes(whole[:-count])
        ran = predict(program, path, pixels)
        assert ran.returncode == 1 and "zip behind its graph" in ran.stderr


READS = {
    ".hpp": r'(at\("{0}"\)|associated\(file, "{0}")',
    ".kt": r'(get\w+|text)\("{0}"\)',
    ".swift": r'(public let {0}: |files\["{0}"\])',  # the properties of what is Decodable
}


@pytest.mark.parametrize("source", sorted(NATIVE.iterdir()), ids=lambda path: path.name)
def test_every_runtime_reads_every_part(source, model):
    with zipfile.ZipFile(model) as archive:
        values = json.loads(archive.read("early_exit.json"))
    text, pattern = source.read_text(), READS[source.suffix]
    parts = {*values, *values["operating_points"][0], "labels.txt"} - {"cost_unit"}
    assert not [part for part in parts if not re.search(pattern.format(re.escape(part)), text)]
