"""Trainings on folders that are streamed from their files."""

import signal

import numpy as np
from PIL import Image

from tests.processes import Process


def test_killed_training_goes_on_to_the_same_weights(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.jpg")

    def run(killed_at):
        command = ("-m", "tests.training.streamed_training", str(tmp_path), str(killed_at))
        process = Process(*command)
        _, error = process.communicate()
        return process.returncode, error

    # Fourteen images are four batches an epoch: in the middle of the second.
    status, error = run(killed_at=6)
    assert status == -signal.SIGKILL, error
    assert list((tmp_path / "killed").rglob("checkpoint-00001.state"))
    status, error = run(killed_at=-1)
    assert status == 0, error
    with np.load(tmp_path / "killed.npz") as killed, np.load(tmp_path / "whole.npz") as whole:
        assert killed.files == whole.files
        for name in whole.files:
            np.testing.assert_array_equal(killed[name], whole[name])
