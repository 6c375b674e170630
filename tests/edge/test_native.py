"""Runtimes in other languages: the one in C++ against Python's, all of them against the package."""

import json
import re
import shutil
import subprocess
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kdtoolkit.edge import EarlyExitClassifier
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
def pixels(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels") / "images"
    path.write_bytes(IMAGES.tobytes())
    return path


def predict(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True)


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
    ran = predict(program, path, pixels, str(point))
    assert ran.returncode == 0, ran.stderr
    lines = [line.split("\t") for line in ran.stdout.splitlines()]
    expected = classifier.predict(IMAGES)
    assert [(label, int(index), name) for label, index, _, name in lines] == [
        (p.label, p.index, p.exit) for p in expected
    ]
    confidences = [float(confidence) for _, _, confidence, _ in lines]
    np.testing.assert_allclose(confidences, [p.confidence for p in expected], atol=1e-5)


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


@pytest.mark.parametrize("source", sorted(NATIVE.iterdir()), ids=lambda path: path.name)
def test_every_runtime_reads_every_part(source, model):
    with zipfile.ZipFile(model) as archive:
        values = json.loads(archive.read("early_exit.json"))
    text = source.read_text()
    parts = {*values, *values["operating_points"][0], "labels.txt"} - {"cost_unit"}
    assert not [part for part in parts if not re.search(rf"\b{re.escape(part)}\b", text)]
