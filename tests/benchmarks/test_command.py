"""`python -m benchmarks`: the report has every table and row that it promises."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"plain", "Patriarch, plain", "Student", "Self-distillation", "Distiller"}
AS_STARTED = {"plain, as started", "Student, as started", "Distiller, as started"}
AS_STARTED |= {"Distiller, as started, no oneDNN"}
PYTORCH = {"PyTorch", "PyTorch, teacher", "PyTorch, compiled", "PyTorch, compiled, teacher"}


@pytest.fixture(scope="module")
def report():
    if os.environ.get("KDTOOLKIT_TEST") != "all":
        pytest.skip("two dozen processes: set KDTOOLKIT_TEST=all")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--device=cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def section(report, heading):
    return report.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text):
    """First cells of the rows of tables."""
    return {line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")}


def test_no_gpu(capsys):
    with pytest.raises(SystemExit):
        main(["--device=gpu"])
    assert "--device=gpu needs a GPU" in capsys.readouterr().err


def test_environment(report):
    head = report.partition("\n## ")[0]
    assert head.startswith("# Benchmarks\n")
    assert "- command: python -m benchmarks --quick --device=cpu\n" in head
    assert "tensorflow 2." in head and "- computing on CPU" in head


def test_training_steps(report):
    text = section(report, "Training step")
    found = rows(text)
    assert found >= STEPS
    assert rows(section(report, "Training as users start it")) >= AS_STARTED
    left_out = set(re.findall(r"- left out: (PyTorch.*?) \(", text))
    assert found | left_out >= PYTORCH
    if find_spec("torch") is None:
        assert left_out >= PYTORCH and "without PyTorch)" in text


def test_ratios(report):
    assert rows(section(report, "Ratios")) >= {
        "Student / plain",
        "Distiller / Student",
        "Distiller, as started / Student, as started",
        "Distiller, as started, no oneDNN / Student, as started",
    }


def test_replicas(report):
    found = rows(section(report, "Replicas"))
    assert found >= {"one device", "2 logical CPUs, MirroredStrategy", "2 workers"}


def test_input_pipeline(report):
    assert re.search(r"[\d,]+ images/s", section(report, "Input pipeline"))


def test_latency(report):
    found = rows(section(report, "Latency"))
    assert found >= {"Keras, predict", "Keras, compiled call", "LiteRT, full"}
    assert found >= {f"LiteRT, cut at exit_{number}" for number in (1, 2)}
    assert found >= {f"early exit, stops at exit_{number}" for number in (1, 2, 3)}
    assert "Keras, predict / LiteRT, full" in found
