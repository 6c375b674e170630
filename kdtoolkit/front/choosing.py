"""Which files are on the front of accuracy, time and size, and which one is chosen: no Keras here.

A file is a row, a dict. One with a `failure` does not compute what its network computes, and is
never chosen.
"""

from collections.abc import Mapping, Sequence

OBJECTIVES = {
    "ms": "milliseconds_per_image",
    "bytes": "bytes",
    "gzipped_bytes": "gzipped_bytes",
    "macs": "macs",
}
"""What is to be small -> the key of a row that says it."""

_COSTS = ("milliseconds_per_image", "bytes")  # of the front
_ROUNDING = 1e-9  # a fraction of images is no binary number


def keeps(row: Mapping, least: float) -> bool:
    """Whether a file is usable and right on at least a share of the validation images."""
    return not row.get("failure") and row["validation_accuracy"] >= least - _ROUNDING


def choose(rows: Sequence[Mapping], cost: str, least: float) -> int:
    """Returns the index of the cheapest file that is accurate enough.

    Of equally cheap ones it is the most accurate, and of those the first.

    Args:
        rows: with `validation_accuracy` and `cost`.
        cost: one of the values of `OBJECTIVES`.
        least: validation accuracy that a file has to keep.

    Raises:
        ValueError: none keeps it.
    """
    kept = [index for index, row in enumerate(rows) if keeps(row, least)]
    return min(kept, key=lambda index: (rows[index][cost], -rows[index]["validation_accuracy"]))


def best_of_cheaper(rows: Sequence[Mapping], cost: str, than: float) -> int | None:
    """Returns the index of the most accurate file that costs less than an amount; None if none."""
    cheaper = [i for i, row in enumerate(rows) if keeps(row, 0) and row[cost] < than]
    return max(cheaper, key=lambda index: rows[index]["validation_accuracy"], default=None)


def front(rows: Sequence[Mapping]) -> list[bool]:
    """Returns of each file whether it is on the Pareto front.

    It is, unless another one is at least as accurate, as fast and as small, and better in one of
    them. Files that are alike in all are on it together.
    """

    def merits(row):
        return (row["validation_accuracy"], *(-row[cost] for cost in _COSTS))

    usable = [merits(row) for row in rows if keeps(row, 0)]

    def beaten(own):
        return any(
            other != own and all(a >= b for a, b in zip(other, own, strict=True))
            for other in usable
        )

    return [keeps(row, 0) and not beaten(merits(row)) for row in rows]
