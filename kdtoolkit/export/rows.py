"""What a table of exported files says of each: the parts of its row, as JSON holds them."""

import dataclasses
from pathlib import Path

MOST_IMAGES = 10_000
"""Exports run on so many test images at most: one at a time, and from memory."""


def verdict(failure: str | None) -> dict:
    """Returns the part of a file's row that says whether it computes what its network computes.

    Args:
        failure: how it does not, in words; None if it does.
    """
    return {"check": "FAILED" if failure else "passed", "failure": failure}


def file_facts(exported, output_dir: Path) -> dict:
    """Returns the part of a file's row that says what was written, and how large it is.

    Args:
        exported: a `kdtoolkit.export.Exported`.
        output_dir: of the run, to which the path is relative.
    """
    return {
        "path": str(exported.path.relative_to(output_dir)),
        "format": exported.format,
        "quantization": exported.quantization,
        "bytes": exported.bytes,
        "gzipped_bytes": exported.gzipped_bytes,
    }


def parity_facts(parity) -> dict:
    """Returns the part of a file's row that says how it compares with its network.

    Args:
        parity: a `kdtoolkit.export.Parity`.
    """
    return {
        "test_accuracy": parity.test_accuracy,
        "max_difference": parity.max_difference,
        "mean_difference": parity.mean_difference,
        "agreement": parity.agreement,
        **verdict(parity.failure),
        "milliseconds_per_image": parity.milliseconds_per_image,
    }


def mixed_facts(mixed) -> dict:
    """Returns the part of a mixed file's row that says what is rounded in it, and why.

    Args:
        mixed: a `kdtoolkit.export.Mixed`.
    """
    facts = {
        name: getattr(mixed, name)
        for name in ("float32_accuracy", "int8_accuracy", "accuracy", "images")
    }
    operations = [
        {**dataclasses.asdict(one), "short_name": one.short_name} for one in mixed.operations
    ]
    return {**facts, "operations": operations}


def early_exit_facts(file, output_dir: Path) -> dict:
    """Returns the row of a file that stops early.

    Args:
        file: a `kdtoolkit.export.EarlyExitFile`.
        output_dir: of the run, to which the path is relative.
    """
    if file.exported is None:
        path = str(file.path.relative_to(output_dir))
        return {"path": path, "quantization": file.quantization, **verdict(file.failure)}
    row = {
        **file_facts(file.exported, output_dir),
        **verdict(file.failure),
        "test_accuracy": file.test_accuracy,
        "milliseconds_per_image": file.milliseconds_per_image,
        "mean_exit_cost": file.mean_exit_cost,
    }
    if file.not_compared is not None:
        return {**row, "not_compared": file.not_compared}
    return {
        **row,
        "full_test_accuracy": file.full_test_accuracy,
        "full_milliseconds_per_image": file.full_milliseconds_per_image,
    }
