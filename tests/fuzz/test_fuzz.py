"""The harness notices what it is for; and a few hundred inputs of what reads files and flags."""

import os
import signal
import subprocess
import sys
import time

import numpy as np

from tests.fuzz import harness
from tests.fuzz.areas import AREAS


class Toy:
    """Accepts and refuses in turns, but goes wrong with input 2 in its own way."""

    limit, memory = 0.5, 2**28

    def __init__(self, directory):
        self.file = directory / "tries"
        name = type(self).__name__
        self.draws = [harness.generator(0, name, index).integers(2**60) for index in range(5)]

    def attempt(self, rng):
        index = self.draws.index(rng.integers(2**60))
        if index == 2:
            self.go_wrong()
        return ["accepted", "refused"][index % 2]

    def go_wrong(self):
        pass


class Waits(Toy):
    def go_wrong(self):
        time.sleep(60)


class WaitsOnce(Toy):
    """As on a machine that is busy."""

    def go_wrong(self):
        if not self.file.exists():
            self.file.touch()
            time.sleep(60)


class Computes(Toy):
    def go_wrong(self):
        while True:
            pass


class Takes(Toy):
    def go_wrong(self):
        np.ones(2**26)


class Crashes(Toy):
    def go_wrong(self):
        os.kill(os.getpid(), signal.SIGSEGV)


class Raises(Toy):
    def go_wrong(self):
        raise KeyError("told")


def test_what_goes_wrong_is_found(tmp_path):
    areas = {area.__name__: area for area in (Toy, Waits, Computes, Takes, Crashes, Raises)}
    reported = []
    tallies = harness.run(
        areas, dict.fromkeys(areas, range(5)), 0, tmp_path, lambda *what: reported.append(what)
    )
    for area, part in {
        "Waits": "it takes over 0.5 s",
        "Computes": "it takes over 0.5 s",
        "Takes": "MiB",
        "Crashes": "status -11",
        "Raises": "KeyError: 'told' (test_fuzz.py",
    }.items():
        ((index, finding),) = tallies[area].findings.items()
        assert index == 2 and part in finding
        assert (area, 2, finding) in reported
        assert sum(tallies[area].counts.values()) == 4
    assert tallies["Toy"].counts == {"accepted": 3, "refused": 2}
    assert not tallies["Toy"].findings
    assert tallies["Takes"].peak[0] > Toy.memory > tallies["Toy"].peak[0]
    *_, last = harness.table(tallies).splitlines()
    assert last.split() == ["all", "30", "13", "12", "5"]


def test_a_hang_that_does_not_come_again_is_none(tmp_path):
    tallies = harness.run({"WaitsOnce": WaitsOnce}, {"WaitsOnce": range(5)}, 0, tmp_path)
    assert not tallies["WaitsOnce"].findings


def test_an_input_is_a_function_of_seed_area_and_index():
    draw = [harness.generator(*key).integers(2**60) for key in ((1, "a", 2), (1, "a", 2))]
    assert draw[0] == draw[1]
    others = [(2, "a", 2), (1, "b", 2), (1, "a", 3)]
    assert len({draw[0], *(harness.generator(*key).integers(2**60) for key in others)}) == 4


def test_some_inputs():
    areas = [f"--area={name}" for name in AREAS if name != "directories"]  # which train networks
    count = 400 if os.environ.get("KDTOOLKIT_TEST") == "all" else 25
    command = [sys.executable, "-m", "tests.fuzz", f"--count={count}", "--seed=1", *areas]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *_, last = ran.stdout.splitlines()
    assert last.split()[0] == "all" and int(last.split()[1]) >= count
