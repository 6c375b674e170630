"""What a study found, as one small file: figures, and for each test image whether it was right."""

import base64
import contextlib
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from kdtoolkit import files
from kdtoolkit._types import PathLike
from kdtoolkit.study.plan import Arm, Comparison, Plan


@dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
        arm, seed: which.
        command: what was run, without its directories.
        facts: commit, environment and time of the run.
        outcomes: name -> figures, fractions of 1, seconds, and costs relative to a plain network.
        correct: name -> booleans, whether each test image was classified correctly.
    """

    arm: str
    seed: int
    command: str
    facts: Mapping[str, object]
    outcomes: Mapping[str, Mapping[str, float]]
    correct: Mapping[str, np.ndarray] = field(repr=False)


@dataclass(frozen=True)
class Results:
    """What is known of a study so far.

    Attributes:
        plan: of the study.
        runs: (arm, seed) -> run.
    """

    plan: Plan
    runs: Mapping[tuple[str, int], Run]

    def of(self, arm: str, outcome: str) -> dict[int, Run]:
        """Returns seed -> run, of the finished runs of an arm that have an outcome."""
        return {
            seed: self.runs[arm, seed]
            for seed in self.plan.seeds
            if (arm, seed) in self.runs and outcome in self.runs[arm, seed].outcomes
        }

    def outcomes(self, arm: str) -> list[str]:
        """Returns the names of an arm's outcomes, in their order."""
        runs = [run for (name, _), run in self.runs.items() if name == arm]
        return list(dict.fromkeys(outcome for run in runs for outcome in run.outcomes))


def write_results(path: PathLike, results: Results) -> None:
    """Writes results, whole or not at all, with a checksum."""
    runs = [
        {
            "arm": run.arm,
            "seed": run.seed,
            "command": run.command,
            **run.facts,
            "outcomes": {
                name: {**figures, "correct": pack(run.correct[name])}
                for name, figures in run.outcomes.items()
            },
        }
        for run in results.runs.values()
    ]
    files.write_record(path, {"plan": asdict(results.plan), "runs": runs})


def read_results(path: PathLike) -> Results:
    """Reads what `write_results` wrote.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: it is not as it was written.
    """
    content = files.read_record(path)
    with _damage(path):
        plan = _plan(content["plan"])
        runs = [_run(dict(each)) for each in content["runs"]]
    return Results(plan, {(run.arm, run.seed): run for run in runs})


@contextlib.contextmanager
def _damage(path):
    try:
        yield
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise files.DamagedFileError(f"{Path(path)} holds no results of a study") from error


def _plan(content):
    return Plan(
        content["name"],
        content["title"],
        tuple(content["seeds"]),
        tuple(map(_arm, content["arms"])),
        tuple(Comparison(tuple(c["of"]), tuple(c["to"])) for c in content["comparisons"]),
    )


def _arm(content):
    seeds = content.get("seeds")  # of no arm in files from before arms had their own
    return Arm(**{**content, "seeds": None if seeds is None else tuple(seeds)})


def _run(content):
    correct, outcomes = {}, {}
    for name, figures in content.pop("outcomes").items():
        correct[name] = unpack(figures.pop("correct"))
        outcomes[name] = figures
    own = {key: content.pop(key) for key in ("arm", "seed", "command")}
    return Run(**own, facts=content, outcomes=outcomes, correct=correct)


def pack(correct: np.ndarray) -> str:
    """Returns booleans `(n,)` as text: their number, and their bits, compressed, in base 64."""
    bits = zlib.compress(np.packbits(np.asarray(correct, bool)).tobytes(), 9)
    return f"{len(correct)}:{base64.b64encode(bits).decode()}"


def unpack(text: str) -> np.ndarray:
    """Returns the booleans of `pack`.

    Raises:
        ValueError, zlib.error: the text is another.
    """
    count, _, bits = text.partition(":")
    packed = np.frombuffer(zlib.decompress(base64.b64decode(bits)), np.uint8)
    return np.unpackbits(packed, count=int(count)).astype(bool)
