"""What a run leaves of a network's sensitivity: `sensitivity.json`, and `sensitivity.svg`."""

import dataclasses
from pathlib import Path

from kdtoolkit import analysis, files
from kdtoolkit.compression.sensitivity_analysis import Sensitivity
from kdtoolkit.data.wording import listed

_RECORD = "sensitivity.json"
_PICTURE = "sensitivity.svg"
_NAMED = 2  # Layers of a group, in a picture.


def written(directory: Path) -> bool:
    """Whether both files are there, the figures as they were written."""
    try:
        files.read_record(directory / _RECORD)
        return (directory / _PICTURE).is_file()
    except (OSError, ValueError) as error:
        if not files.is_damage(error):
            raise
        return False


def write(found: Sensitivity, directory: Path) -> None:
    """Writes the files: the picture, and then the figures."""
    analysis.plot_drops(_drops(found), directory / _PICTURE)
    files.write_record(directory / _RECORD, dataclasses.asdict(found))


def _drops(found: Sensitivity) -> dict[str, dict[str, float]]:
    """Part -> change -> accuracy lost; a group of one layer, and the layer, are one part."""
    drops: dict[str, dict[str, float]] = {}
    for row in found.rows:
        change = row.kind if row.share is None else f"{row.share:.0%} of the channels"
        name = part = listed(row.layers, most=_NAMED)
        number = 1
        while change in drops.setdefault(part, {}):  # other channels of the same layers
            number += 1
            part = f"{name} ({number})"
        drops[part][change] = row.drop
    return drops
