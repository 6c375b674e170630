"""`results.json`, and the table and the lines that a recipe ends with."""

import datetime
import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from kdtoolkit import files
from kdtoolkit._machine import cores
from kdtoolkit._tables import aligned

EXPORT_COLUMNS = {
    "path": ("file", ""),
    "bytes": ("bytes", ",d"),
    "gzipped_bytes": ("gzipped", ",d"),
    "test_accuracy": ("test accuracy", ".2%"),
    "max_difference": ("largest difference", ".1e"),
    "check": ("check", ""),
    "milliseconds_per_image": ("ms/image", ".3f"),
}
FIGURES = "report.html shows it, results.json holds the figures."
_FIRST_CLASSES = 3
_PACKAGES = ("kdtoolkit", "tensorflow", "keras", "tensorflow-datasets", "ai-edge-litert", "numpy")


def environment() -> dict:
    """Returns versions, device and cores of this process."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            continue
    return {
        "versions": versions,
        "device": ", ".join(map(str, names)) or f"CPU {platform.machine()}",
        "cores": cores(),
    }


def command(recipe: str, arguments: Sequence[str]) -> str:
    """Returns the command line of a run."""
    return shlex.join(["python", "-m", f"kdtoolkit.recipes.{recipe}", *arguments])


def environment_facts(found: Mapping) -> dict[str, str]:
    """Returns what `environment` found, as text: machine, versions."""
    return {
        "machine": f"{found['device']}, {found['cores']} cores",
        "versions": ", ".join(f"{name} {value}" for name, value in found["versions"].items()),
    }


# What somebody may use of a finished run; not its log, its cache, what was set aside, and the page,
# which is made of the rest.
_LEFT = (
    *("**/export/**/*", "sensitivity.json", "sensitivity.svg", "analysis/*"),
    *("**/network.keras", "**/network.json", "*/**/results.json"),
)


def left(output_dir: Path) -> dict[str, str]:
    """Returns the files that a finished run leaves, relative paths, with their SHA-256."""
    paths = {path for pattern in _LEFT for path in output_dir.glob(pattern) if path.is_file()}
    return {path.relative_to(output_dir).as_posix(): files.sha256(path) for path in sorted(paths)}


def now() -> str:
    """Returns the time in UTC, to seconds, as ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def write_results(
    output_dir: Path, recipe: str, arguments: Sequence[str], seed: int, **parts
) -> dict:
    """Writes `results.json`, with its checksum, and returns what it says.

    Paths in it are relative to the directory.
    """
    header = {
        "recipe": recipe,
        "command": command(recipe, arguments),
        "seed": seed,
        "environment": environment(),
    }
    results = {**header, **parts}
    files.write_record(output_dir / "results.json", results)
    return results


def data_facts(data) -> dict:
    """Returns what was loaded, as `results.json` has it: counts, first classes, the splits' origin.

    Args:
        data: a `kdtoolkit.data.Data`.
    """
    info = data.info
    held_out = "held out of the training images"
    return {
        "train": len(data.train),
        "validation": len(data.validation),
        "test": len(data.test),
        "validation_from": (info.validation_split or held_out) if len(data.validation) else "none",
        "test_from": info.test_split or held_out,
        "classes": info.classes,
        "first_classes": list(info.labels[:_FIRST_CLASSES]),
        "image_shape": list(info.image_shape),
    }


def data_line(facts: Mapping) -> str:
    """Returns the facts of `data_facts` as one line."""
    names = ", ".join(facts["first_classes"]) + ", ..." * (facts["classes"] > _FIRST_CLASSES)
    return (
        f"Data: {facts['train']:,} images to train on, "
        f"{facts['validation']:,} to validate on ({facts['validation_from']}), "
        f"{facts['test']:,} to test on ({facts['test_from']}), "
        f"{'x'.join(map(str, facts['image_shape']))}, {facts['classes']} classes ({names})"
    )


def failures(rows: Sequence[Mapping], name: str) -> dict[str, str]:
    """Returns the names of the rows that failed, from the key `name` -> how."""
    return {row[name]: row["failure"] for row in rows if row.get("failure")}


def table(rows: Sequence[Mapping], columns: Mapping[str, tuple[str, str]]) -> str:
    """Returns rows as aligned text.

    Args:
        rows: dicts.
        columns: key in the rows -> (heading, format such as `".2%"`); a missing value shows as -.
    """
    cells = [[heading for heading, _ in columns.values()]]
    for row in rows:
        cells.append(
            [
                format(row[key], spec) if row.get(key) is not None else "-"
                for key, (_, spec) in columns.items()
            ]
        )
    return aligned(cells)


def kind(row: Mapping) -> str:
    """Returns how an exported file is run: `litert` or `saved_model`."""
    return "litert" if row["path"].endswith(".tflite") else "saved_model"


def how_to_run(row: Mapping, directory: Path) -> str:
    """Returns the lines that run an exported file.

    Args:
        row: of the file, with its `path`.
        directory: of the run.
    """
    path = str(directory / row["path"])
    if kind(row) == "litert":
        return f"python -m kdtoolkit.edge {shlex.quote(path)} IMAGE"
    return (
        "import tensorflow as tf\n\n"
        f"classify = tf.saved_model.load({path!r}).signatures['serving_default']\n"
        "probabilities = classify(image=tf.constant(image[None]))['probabilities'][0]"
    )


def exports_table(results, output_dir, columns=None):
    """Returns what a recipe ends with: the table of the files, and where everything is."""
    rows = results["exports"]
    shown = f"\n{table(rows, columns or EXPORT_COLUMNS)}\n" if rows else ""
    return shown + ending(rows, "path", output_dir, FIGURES)


def ending(rows, name, output_dir, figures):
    """Returns the last lines of a recipe: the files that failed, and where all others are.

    Args:
        rows: of the files.
        name: key in them of what a file is called.
        output_dir: of the run.
        figures: where they are, the end of the last line.
    """
    failed = failures(rows, name).items()
    lines = [f"\nFAILED, and not kept: {which}: {failure}\n" for which, failure in failed]
    which = "Everything else" if failed else "Everything"
    return "".join([*lines, f"\n{which} is in {output_dir}; {figures}"])
