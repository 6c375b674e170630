"""`report.html`: what a finished run was and what came of it, from what its directory holds.

Nothing here imports TensorFlow: `kdtoolkit report` makes the page again.
"""

import datetime
from collections.abc import Iterator
from pathlib import Path

from kdtoolkit import files, report
from kdtoolkit.recipes import _command, _report
from kdtoolkit.training import record

NAME = "report.html"
_VALIDATION = "val_"
# Charts that come first; those of a method's own terms follow.
_FIRST = ("accuracy", "loss", "primary_score")


def write(recipe: _command.Recipe, directory: Path) -> Path:
    """Writes the page of a finished run of a recipe, and returns its path.

    Raises:
        OSError, ValueError, KeyError, TypeError: the directory is not one.
    """
    results = files.read_record(directory / "results.json")
    flags = _command.read_flags(directory)
    title, sections = recipe.page(flags, results, directory)
    shown = [*sections, *_training(directory), *_exports(results, directory), _flags(flags)]
    report.write_page(directory / NAME, title, shown, _facts(results))
    return directory / NAME


def _facts(results):
    finished = datetime.datetime.fromisoformat(results["finished"])
    return {
        "command": results["command"],
        "finished": f"{finished:%Y-%m-%d at %H:%M} UTC",
        "data": _report.data_line(results["data"]).removeprefix("Data: "),
        **_report.environment_facts(results["environment"]),
    }


def _training(directory) -> Iterator[report.Section]:
    """Curves of everything that was reported after each epoch, all trainings in one chart each."""
    histories = list(_histories(directory))
    figures = dict.fromkeys(name.removeprefix(_VALIDATION) for _, own in histories for name in own)
    if not figures:
        return
    from kdtoolkit.report import pictures

    order = sorted(figures, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST))
    groups = dict.fromkeys(group for group, _ in histories)
    colors = {group: f"C{number}" for number, group in enumerate(groups)}
    words = "After each epoch: on training images as they were being learned"
    if any(name.startswith(_VALIDATION) for _, own in histories for name in own):
        words += " (lines; of one epoch points) and on validation images (dashed; crosses)"
    parts: list = [f"{words}."]
    for figure in order:
        trained, validated = (
            [(group, own[key]) for group, own in histories if key in own]
            for key in (figure, f"{_VALIDATION}{figure}")
        )
        words = figure.replace("_", " ")
        drawn = pictures.over_epochs(trained, validated, words, colors)
        parts.append(report.Picture(drawn, f"{words}, epoch by epoch"))
    yield report.Section("Training", parts)


def _histories(directory):
    """Pairs of a training's group, its directory without its seed, and what its epochs left."""
    for path in sorted(directory.glob(f"*/**/{record.RESULTS}")):
        history = files.read_record(path).get("history")
        if history:
            names = path.parent.relative_to(directory).parts
            group = "/".join(name for name in names if not name.startswith("seed_"))
            yield group.replace("_", " "), history


def _exports(results, directory) -> Iterator[report.Section]:
    if not results["exports"]:
        return
    rows = [row for row in results["exports"] if not row.get("failure")]
    failed = _report.failures(results["exports"], "path").items()
    columns = {
        key: column
        for key, column in _report.EXPORT_COLUMNS.items()
        if any(row.get(key) is not None for row in rows)
    }
    codes: dict[str, report.Code] = {}
    for row in rows:  # one of each kind shows how
        codes.setdefault(
            _report.kind(row),
            report.Code(_report.how_to_run(row, directory), _HOW[_report.kind(row)]),
        )
    lost = [f"FAILED, and not kept: {path}: {failure}" for path, failure in failed]
    tables = [report.Table.of(rows, columns)] if rows else []
    yield report.Section("Files", [*tables, *lost, *codes.values()])


_HOW = {
    "litert": "A LiteRT file, on any image, from the command line; in Python kdtoolkit.edge.load "
    "opens it:",
    "saved_model": "A SavedModel, in TensorFlow and in what serves such models; image: uint8, of "
    "the network's size:",
}


def _flags(flags):
    rows = [("flag", "value"), *((f"--{name}", value) for name, value in flags.items())]
    return report.Section("Flags", [report.Table(rows)])
