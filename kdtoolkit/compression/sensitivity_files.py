"""What a run leaves of a network's sensitivity: `sensitivity.json`, and `sensitivity.svg`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kdtoolkit import files, report
from kdtoolkit.data.wording import listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kdtoolkit.compression.sensitivity_analysis import Sensitivity

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


def write(found: "Sensitivity", directory: Path) -> None:
    """Writes the files: the picture, and then the figures."""
    figures = dataclasses.asdict(found)
    report.plot_drops(_drops(figures["rows"]), directory / _PICTURE)
    files.write_record(directory / _RECORD, figures)


def picture(directory: Path) -> "Figure | None":
    """Returns the picture from the figures; None where there are none."""
    from kdtoolkit.report.pictures import drops_by_part

    if not written(directory):
        return None
    return drops_by_part(_drops(files.read_record(directory / _RECORD)["rows"]))


def _drops(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Part -> change -> accuracy lost; a group of one layer, and the layer, are one part."""
    drops: dict[str, dict[str, float]] = {}
    for row in rows:
        share = row["share"]
        change = row["kind"] if share is None else f"{share:.0%} of the channels"
        name = part = listed(row["layers"], most=_NAMED)
        number = 1
        while change in drops.setdefault(part, {}):  # other channels of the same layers
            number += 1
            part = f"{name} ({number})"
        drops[part][change] = row["drop"]
    return drops
