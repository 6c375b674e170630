"""Which network a recipe's output directory ended with."""

import json
from pathlib import Path

from kdtoolkit.recipes._command import UsageError


def network_path(path: str, flag: str) -> Path:
    """Returns a `.keras` file: the path itself, or the network that a run's directory ended with.

    That is the last generation of `born_again`, the multi-exit network of `self_distillation`, what
    `distill` exported, and the last variant of `compress`.

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
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UsageError(
            f"--{flag}={path} is not the output directory of a finished recipe: {error}"
        ) from error
    if not network.is_file():
        raise UsageError(f"--{flag}={path} has no {network.relative_to(path)}")
    return network


_LAST = {
    "born_again": lambda results: f"generation_{results['generations'][-1]['generation']}",
    "self_distillation": lambda results: "self_distillation",
    "distill": lambda results: "{method}/seed_{seed}".format(**results["exported"]),
    "compress": lambda results: [v["directory"] for v in results["variants"] if v["directory"]][-1],
}
