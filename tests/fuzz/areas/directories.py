"""Output directories: finished runs and runs that were stopped."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from tests.fuzz import judge, mutations
from tests.fuzz.areas.archives import members_of
from tests.fuzz.mutations import pick

_FLAGS = [
    *("--generations=1", "--epochs=20", "--train_examples=40", "--batch_size=20", "--export=none"),
    *("--precision=float32", "--strategy=one_device"),
]
_TIMES = ("seconds", "images_per_second")


class Directories:
    """The same command again ends with the same networks and figures, or says in one line why not.

    A network that was not touched is still there, as it was. Figures include how long a training
    took, unless the run says that something was damaged, and trains again.
    """

    limit = 60  # seconds: it trains again what is damaged

    def __init__(self, directory):
        from kdtoolkit.recipes.born_again import RECIPE

        self._main = RECIPE.main
        self._path = directory / "run"
        self._samples = [directory / "finished", directory / "stopped"]
        finished, stopped = self._samples
        if not stopped.exists():
            while not list(self._path.glob("generation_1/*.state")):
                shutil.rmtree(self._path, ignore_errors=True)
                self._run_and_kill()
            shutil.copytree(self._path, self._path.with_name("half"))
            self._run()
            shutil.rmtree(finished, ignore_errors=True)
            self._path.rename(finished)
            self._path.with_name("half").rename(stopped)
        shutil.rmtree(self._path, ignore_errors=True)
        self._weights = {
            path.relative_to(finished): _arrays(path) for path in finished.rglob("*.keras")
        }
        self._figures = _figures(finished)

    def attempt(self, rng):
        sample = pick(rng, self._samples)
        if os.path.lexists(self._path):
            shutil.rmtree(self._path)
        shutil.copytree(sample, self._path)
        touched = set()
        for _ in range(int(pick(rng, [1, 1, 1, 2]))):
            self._mutate(rng, touched)
        untouched = {
            path: path.read_bytes()
            for path in self._path.rglob("*.keras")
            if path not in touched and path.is_file()
        }
        names = [f"generation_{number}/results.json" for number in range(2)]
        whole = all((self._path / name).is_file() for name in names)  # else one trains again
        status, output, error = self._run()
        for path, content in untouched.items():
            judge.require(
                path.is_file() and (status == 0 or path.read_bytes() == content),
                f"{path} is lost; status {status}: {error}",
            )
        if status:
            return "refused"
        self._check(output, error, whole=whole)
        return "accepted"

    def _run(self):
        return judge.command(self._main, [*_FLAGS, f"--output_dir={self._path}"], silent=False)

    def _run_and_kill(self):
        """A run that is killed once its second generation has a state."""
        command = [sys.executable, "-m", "kdtoolkit.recipes.born_again", *_FLAGS]
        with subprocess.Popen([*command, f"--output_dir={self._path}"]) as process:
            while process.poll() is None and not list(self._path.glob("generation_1/*.state")):
                time.sleep(0.01)
            process.kill()

    def _check(self, output, error, whole):
        for name, arrays in self._weights.items():
            found = _arrays(self._path / name)
            judge.require(
                found.keys() == arrays.keys()
                and all(np.array_equal(found[key], value) for key, value in arrays.items()),
                f"other weights in {name}; {error}",
            )
        figures, expected = _figures(self._path), self._figures
        again = not whole or any("damaged" in line or "again" in line for line in error)
        if again:
            figures, expected = map(_without_times, (figures, expected))
        judge.require(figures == expected, f"{figures} for {expected}; {error}")
        shares = [f"{100 * row['test_accuracy']:.2f}%" for row in self._figures]
        printed = re.findall(r"^ +\d+ +(\S+%)", output, re.MULTILINE)
        judge.require(printed == shares, f"{printed} for {shares}: {output}")

    def _mutate(self, rng, touched):
        files = sorted(path for path in self._path.rglob("*") if path.is_file())
        files = [path for path in files if "logs" not in path.parts]
        path = pick(rng, files)
        kind = rng.random()
        if kind < 0.55:
            path.write_bytes(_other_content(path, rng, touched))
            touched.add(path)
        elif kind < 0.65:
            touched.add(path)
            path.unlink()
        elif kind < 0.75:
            touched.add(path)
            path.unlink()
            pick(rng, _KINDS)(path)
        elif kind < 0.87:
            same = [other for other in files if other.name == path.name] or [path]
            other = pick(rng, same)
            touched |= {path, other}
            path.write_bytes(other.read_bytes())
        else:
            parent = pick(rng, [self._path, path.parent])
            stray = parent / pick(rng, _STRAYS)
            touched.add(stray)
            if not os.path.lexists(stray):
                pick(rng, [*_KINDS, lambda p: p.write_bytes(rng.bytes(50))])(stray)


_KINDS = [os.mkfifo, os.mkdir, lambda path: os.symlink(path, path), lambda path: path.touch()]
_STRAYS = [
    *(".partial-00000000-config.flags", ".partial-0123abcd-network.keras", ".lock", "notes.txt"),
    *("generation_2", "generation_1", "export", "checkpoint-99999.state", "a\nb", "\udcff"),
    *("checkpoint-00000.state", "results.json.damaged", "network.keras.damaged", "report.html"),
]


def _other_content(path, rng, touched):
    content = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.5 and path not in touched:
        return mutations.mutate_json(content, rng)
    if path.suffix == ".keras" and rng.random() < 0.3 and path not in touched:
        members, _ = mutations.mutate_members(
            members_of(path), rng, lambda member, rng: mutations.damage(member.content, rng), [{}]
        )
        return mutations.write_zip(members)
    return mutations.damage(content, rng)


def _figures(directory):
    return json.loads((directory / "results.json").read_text())["generations"]


def _without_times(rows):
    return [{key: value for key, value in row.items() if key not in _TIMES} for row in rows]


def _arrays(path: Path):
    """Every array of a `.keras` file, without Keras."""
    import h5py

    arrays = {}
    with zipfile.ZipFile(path) as archive:
        stream = io.BytesIO(archive.read("model.weights.h5"))
    h5py.File(stream).visititems(
        lambda name, item: arrays.update({name: item[()]}) if hasattr(item, "dtype") else None
    )
    return arrays
