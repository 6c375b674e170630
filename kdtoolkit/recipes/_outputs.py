"""Networks that a run is given: a file, or what another run's directory ended with."""

import atexit
import hashlib
import json
import tempfile
from pathlib import Path

from kdtoolkit import cluster, files
from kdtoolkit.recipes._command import UsageError, blaming
from kdtoolkit.recipes._run import losing_workers


def network_path(path: str, flag: str) -> Path:
    """Returns a `.keras` file: the path itself, or the network that a run's directory ended with.

    That is the last generation of `born_again`, the multi-exit network of `self_distillation`, the
    best student of `distill`, and the pruned network of `compress`.

    Raises:
        UsageError: there is no such file, or the directory is not that of a finished run.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(
            f"--{flag} must be a .keras file or a recipe's output directory. "
            f"Received: --{flag}={path}"
        )
    try:
        results = json.loads((path / "results.json").read_text())
        network = path / _LAST[results["recipe"]](results) / "network.keras"
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"--{flag}={path} is not the output directory of a finished recipe: {error}"
        ) from error
    if not network.is_file():
        raise UsageError(f"--{flag}={path} has no {network.relative_to(path)}")
    return network


_LAST = {
    "born_again": lambda results: f"generation_{results['generations'][-1]['generation']}",
    "self_distillation": lambda results: "self_distillation",
    "distill": lambda results: "{method}/seed_{seed}".format(**results["best"]),
    "compress": lambda results: results["network"],
}


def name(path: str) -> str:
    """Returns what a network's file, or a run's directory, is called in the name of another run."""
    return Path(path).stem if path.endswith(".keras") else Path(path).resolve().name


def check_network(flags, flag: str) -> None:
    """Checks that a flag names a network, as `network_path` does.

    Of several workers the chief alone does this: the others need not see its disk.

    Raises:
        UsageError: it names none.
    """
    with blaming("strategy"):
        sees = cluster.is_chief(flags.strategy)
    if sees:
        network_path(flags[flag].value, flag)


def fetch(flags, flag: str) -> Path:
    """Returns the network's file that a flag names; on workers that do not read it, a copy.

    All workers have to call this at the same point of their program.

    Raises:
        RunError: another worker ended.
    """
    if cluster.of_strategy(flags.strategy) is None:
        return network_path(flags[flag].value, flag)
    from kdtoolkit.training import distribution

    def read():
        path = network_path(flags[flag].value, flag)
        return path, path.read_bytes()

    strategy = distribution.strategy(flags.strategy)
    with losing_workers():
        path, content = distribution.from_chief(strategy, read)
    if not distribution.is_chief(strategy):
        with tempfile.NamedTemporaryFile(suffix=path.suffix, delete=False) as copy:
            copy.write(content)
        path = Path(copy.name)
        atexit.register(files.remove, path)
    return path


def remember(flags, flag: str, path: Path, output_dir: Path) -> None:
    """Notes in the output directory which file a run was given, or finds that it is the same.

    Of several workers the chief alone does this.

    Raises:
        UsageError: it is another one, or the note cannot be read.
    """
    if not cluster.is_chief(flags.strategy):
        return
    note = output_dir / f"{flag}.json"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not note.exists():
        files.write_json(note, {"path": str(path), "sha256": digest})
        return
    try:
        known = json.loads(note.read_text())["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--output_dir={output_dir} cannot go on: {note.name} is damaged ({error})"
        ) from error
    if known != digest:
        raise UsageError(
            f"--{flag}={path} is another file than the one that --output_dir={output_dir} began "
            "with. Accepted: that file, or another directory"
        )
