"""What a search tries, in which order, and what is not worth trying: no Keras here."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kdtoolkit.front.choosing import keeps

KINDS = ("quantize", "channels", "weights", "student", "early_exit")
"""What is tried, in this order. `quantize` always is: others are compared with its files."""

NO_TIME = "no time left"
"""What comes of a candidate that does not begin within the budget."""

_SHARES = (0.75, 0.5, 0.35, 0.25)  # of the multiply-accumulates
_TOO_FAR = 3  # times the limit: a step that loses more has no use for a longer one
_SMALL = 64  # pixels; networks for larger images halve them twice before the first stage


@dataclass(frozen=True)
class Candidate:
    """Something that is tried.

    Attributes:
        kind: one of `KINDS`, or `"mixed"`.
        option: share of the multiply-accumulates that channels are to come down to; name of a
            student.
    """

    kind: str
    option: float | str | None = None

    @property
    def name(self) -> str:
        """Of its directory, and in tables."""
        option = "" if self.option is None else f"-{self.option}"
        return f"{self.kind}{option}".replace(":", "-")

    @property
    def title(self) -> str:
        """Of its network."""
        return self.name if self.trains else "classifier"

    @property
    def trains(self) -> bool:
        return self.kind not in ("quantize", "mixed")


def candidates(kinds: Iterable[str], students: Sequence[str]) -> list[Candidate]:
    """Returns what is tried, in order.

    Args:
        kinds: some of `KINDS`.
        students: names of networks.
    """
    of_kind = {
        "channels": [Candidate("channels", share) for share in _SHARES],
        "student": [Candidate("student", name) for name in students],
    }
    found = [Candidate("quantize"), Candidate("mixed")]
    for kind in KINDS[1:]:
        if kind in kinds:
            found += of_kind.get(kind, [Candidate(kind)])
    return found


def usual_student(height: int, width: int) -> str:
    """Returns the name of a small network for images of a size."""
    return "resnet8" if min(height, width) < _SMALL else "imagenet-resnet18-w16"


def needless(
    candidate: Candidate,
    objective: str,
    rows: Sequence[Mapping],
    vain: Container[str],
    limit: float,
) -> str | None:
    """Returns why a candidate is not worth trying, in words; None if it is.

    Args:
        candidate: the next one.
        objective: one of `OBJECTIVES`.
        rows: of all files before, each with its `candidate`, the classifier's float32 file first.
        vain: names of the candidates that left no file.
        limit: accuracy that may be lost against that.
    """
    reference = rows[0]["validation_accuracy"]
    kept = [row["quantization"] for row in rows if keeps(row, reference - limit)]
    if candidate.kind == "mixed" and "int8" in kept:
        return "the int8 file loses little enough"
    if candidate.kind == "weights" and objective != "gzipped_bytes":
        return "zeros make no file smaller, but its download: gzipped_bytes"
    if candidate.kind == "channels":
        before = _SHARES[: _SHARES.index(candidate.option)]
        for name in (Candidate("channels", share).name for share in before):
            if name in vain:
                return f"{name} came to nothing"
            own = [row for row in rows if row["candidate"] == name]
            if own and not any(keeps(row, reference - _TOO_FAR * limit) for row in own):
                return f"{name} has lost more than {_TOO_FAR} times the limit"
    return None
