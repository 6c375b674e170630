"""One run of a study, in a process of its own: the recipe, and then what it has to show.

python -m kdtoolkit.study.worker RECIPE OUTCOMES.json PATRIARCH COMMAND --flag=value ...

COMMAND is what the study calls this run: without its directories.
"""

import contextlib
import importlib
import os
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import _errors, files
from kdtoolkit.recipes import _command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a recipe and writes its outcomes; returns the exit status."""
    name, outcomes, patriarch, command, *arguments = sys.argv[1:] if argv is None else argv
    recipe = importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE
    steps = (
        lambda: _take(recipe, arguments, Path(patriarch)) if patriarch else 0,
        lambda: recipe.main(arguments),
        lambda: _write(recipe, arguments, Path(outcomes), command),
    )
    for step in steps:
        status = _errors.guarded("study", step)
        if status:
            break
    return status


def _take(recipe, arguments, patriarch):
    """Begins a run with a generation 0 that another one of the same flags and seed has trained."""
    flags, _ = recipe.parse(arguments)
    target = Path(flags["output_dir"].value) / patriarch.name
    if not target.exists():
        with contextlib.ExitStack() as held:
            flags.remember(arguments, held)
            _command.check_output_dir(flags)
            _command.claim_output_dir(flags)
            files.write_atomically(target, lambda scratch: shutil.copytree(patriarch, scratch))
    return 0


def _write(recipe, arguments, path, command):
    from kdtoolkit.recipes import _session
    from kdtoolkit.study.outcomes import outcomes
    from kdtoolkit.study.results import pack

    flags, _ = recipe.parse(arguments)
    directory = Path(flags["output_dir"].value)
    results = files.read_record(directory / "results.json")
    found = outcomes(directory, results, _session.load(flags))
    value = {
        "command": command,
        "environment": results["environment"],
        "finished": results["finished"],
        "outcomes": {
            name: {**one.figures, "correct": pack(one.correct)} for name, one in found.items()
        },
    }
    files.write_record(path, value)
    return 0


def end_with_parent():
    """Ends this process when standard input does: when the study was killed that started it."""

    def wait():
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    end_with_parent()
    sys.exit(main())
