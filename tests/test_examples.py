"""Examples do what they say, and draw it; all with KDTOOLKIT_TEST=all, else none."""

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DIRECTORY = Path(__file__).parents[1] / "examples"


def tolerant_teacher(names):
    """At the loss' optimum the largest score is 0.6; of cross-entropy that is 1."""
    plain, tolerant = names["primary"].values()
    assert plain > 0.9 and abs(tolerant - 0.6) < 0.05


def be_your_own_teacher(names):
    """A 3x3 convolution on 8x8 pixels with 12 filters, and on 4x4 with 24 and 2x2 with 36."""
    costs, accuracies = zip(*names["points"], strict=True)
    assert list(costs) == sorted(costs) and costs[-1] == 1
    assert min(accuracies) > 0.8
    assert all(layer.name != "block_3" for layer in names["shallow"].layers)


def generations_of_digits(names):
    assert len(names["rows"]) == 3
    assert min(names["curves"]["alone"]) > 85


def teacher_and_student(names):
    assert [len(values) for _, values, _ in names["rows"]] == [2, 2]
    assert all(low <= np.mean(values) <= high for _, values, (low, high) in names["rows"])


def fewer_channels(names):
    removed, trained = (np.array(points) for points in names["curves"].values())
    assert (np.diff(removed[:, 0]) < 0).all() and (removed[:, 0] == trained[:, 0]).all()
    assert trained[1, 1] > 0.9 and (trained[1:, 1] >= removed[1:, 1]).all()


def integers(names):
    files = {row["variant"]: row for row in names["rows"]}
    for kind, share in (("float16", 0.6), ("dynamic_range", 0.4), ("int8", 0.4)):
        assert files[kind]["bytes"] < share * files["float32"]["bytes"]
        assert abs(files[kind]["test_accuracy"] - files["float32"]["test_accuracy"]) < 0.02


def honest_confidence(names):
    found = names["found"]
    assert found.temperature > 1 and found.after.error < found.before.error


def smallest_file(names):
    whole, *others = names["found"].rows
    least = whole["validation_accuracy"] - 0.02
    kept = [row for row in others if row["validation_accuracy"] >= least - 1e-9]
    assert names["found"].chosen["bytes"] == min(row["bytes"] for row in [whole, *kept])


CHECKS = [
    *(tolerant_teacher, be_your_own_teacher, generations_of_digits, teacher_and_student),
    *(fewer_channels, integers, honest_confidence, smallest_file),
]
CHOSEN = CHECKS if os.environ.get("KDTOOLKIT_TEST") == "all" else ()


@pytest.mark.parametrize("check", CHOSEN, ids=lambda check: check.__name__)
def test_example(check, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["example.py", "picture.png"])
    names = runpy.run_path(str(DIRECTORY / f"{check.__name__}.py"))
    check(names)
    pixels = np.asarray(Image.open("picture.png").convert("L"))
    assert (pixels < 128).mean() > 0.005  # lines and letters


def test_each_example_is_short_and_in_the_gallery():
    examples = sorted(DIRECTORY.glob("*.py"))
    assert {path.stem for path in examples} == {check.__name__ for check in CHECKS}
    gallery = (DIRECTORY.parent / "docs" / "examples.md").read_text()
    for path in examples:
        assert len(path.read_text().splitlines()) <= 60, path.name
        assert f"](../examples/{path.name})" in gallery
        assert f"](pictures/examples/{path.stem}.png)" in gallery
        assert (DIRECTORY.parent / "docs" / "pictures" / "examples" / f"{path.stem}.png").is_file()
