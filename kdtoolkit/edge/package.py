"""What a packaged classifier carries beside its graph: a zip behind the flatbuffer.

The `.tflite` ecosystem calls these associated files; `zipfile` and `unzip` open them in place:

    labels.txt        one class name a line
    early_exit.json   `"format"`, `"crc32"` of the flatbuffer, the other attributes of `Package`

Format 2 has no certificate, and is what files without one have. In format 1, which is read as well,
costs are relative to the last exit's, heads included.
"""

import json
import math
import numbers
import os
import zlib
from collections.abc import Collection
from dataclasses import asdict, dataclass

from kdtoolkit import bounded
from kdtoolkit._checks import INSIDE_0_1, ArgumentError, Words
from kdtoolkit.edge import associated
from kdtoolkit.edge.certify import RISKS, Certificate

_FORMAT = 2
_CERTIFIED = 3
_FORMATS = (1, _FORMAT, _CERTIFIED)  # what is read
EARLY_EXIT = "early_exit.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class OperatingPoint:
    """One trade between accuracy and cost.

    Attributes:
        thresholds: confidence at which each exit but the last stops; above 1 it never does.
        validation_accuracy: a fraction, measured when the thresholds were chosen.
        cost: mean cost of an image relative to the plain network's, measured likewise.
    """

    thresholds: tuple[float, ...]
    validation_accuracy: float
    cost: float


@dataclass(frozen=True)
class Package:
    """The associated files, checked.

    Attributes:
        labels: class names.
        image_shape: `(height, width, channels)` of the first stage's input; 1 or 3 channels.
        exits: names, shallow to deep.
        temperatures: one for each exit, which divides its logits.
        costs: of stopping at each exit, relative to the plain network's, which has no heads: the
            last is usually above 1.
        cost_unit: what was counted, such as `"macs"`.
        operating_points: `OperatingPoint`s or mappings of their attributes, sorted by cost.
        operating_point: index of the default.
        certificate: of the operating points, a `Certificate` or a mapping of its attributes; or
            None.

    Raises:
        ValueError: an attribute is out of range, or of a length that does not fit the others.
    """

    labels: tuple[str, ...]
    image_shape: tuple[int, int, int]
    exits: tuple[str, ...]
    temperatures: tuple[float, ...]
    costs: tuple[float, ...]
    cost_unit: str
    operating_points: tuple[OperatingPoint, ...]
    operating_point: int
    certificate: Certificate | None = None

    def __post_init__(self):
        for name in ("labels", "image_shape", "exits"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        exits = len(self.exits)
        associated.check_labels(self.labels)
        _require(
            len(self.image_shape) == 3
            and all(isinstance(size, int) and size > 0 for size in self.image_shape)
            and self.image_shape[2] in (1, 3),
            "image_shape",
            "(height, width, channels) with 1 or 3 channels",
            self.image_shape,
        )
        _require(
            exits > 0 and all(isinstance(name, str) for name in self.exits),
            "exits",
            "at least one name",
            self.exits,
        )
        _require(
            _are_numbers(self.temperatures, exits) and min(self.temperatures) > 0,
            "temperatures",
            f"{exits} positive numbers, one for each exit",
            self.temperatures,
        )
        _require(
            _are_numbers(self.costs, exits)
            and min(self.costs) > 0
            and list(self.costs) == sorted(self.costs),
            "costs",
            f"{exits} positive numbers that increase",
            self.costs,
        )
        for name in ("temperatures", "costs"):
            object.__setattr__(self, name, tuple(map(float, getattr(self, name))))
        points = tuple(map(self._operating_point, self.operating_points))
        object.__setattr__(self, "operating_points", points)
        point_costs = [point.cost for point in points]
        _require(
            points and point_costs == sorted(point_costs),
            "operating_points",
            "at least one, sorted by cost",
            f"costs {point_costs}",
        )
        index = check_index(self.operating_point, points)
        object.__setattr__(self, "operating_point", index)
        if self.certificate is not None:
            object.__setattr__(self, "certificate", _certificate(self.certificate, points))

    def _operating_point(self, point):
        values = asdict(point) if isinstance(point, OperatingPoint) else dict(point)
        _require(
            values.keys() == OperatingPoint.__annotations__.keys()
            and _are_numbers([values["validation_accuracy"], values["cost"]], 2),
            "operating_points",
            "thresholds, a validation_accuracy and a cost each",
            values,
        )
        return OperatingPoint(
            check_thresholds(values["thresholds"], len(self.exits)),
            float(values["validation_accuracy"]),
            float(values["cost"]),
        )

    def append(self, path: str | os.PathLike) -> None:
        """Writes the associated files behind the flatbuffer at `path`."""
        values = asdict(self)
        labels = associated.labels_text(values.pop("labels"))
        with open(path, "rb") as file:
            checksum = _checksum(file, os.path.getsize(path))
        number = _CERTIFIED if values["certificate"] else _FORMAT
        if number == _FORMAT:
            del values["certificate"]
        text = json.dumps({"format": number, "crc32": checksum, **values}, indent=2) + "\n"
        associated.append(path, {associated.LABELS: labels, EARLY_EXIT: text})

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Package":
        """Reads the associated files of the `.tflite` at `path`, and checks the flatbuffer's bytes.

        Raises:
            ValueError: a part of the file is absent, damaged or of another format.
            OSError: the file cannot be opened.
        """
        bounded.check_regular(path)
        with open(path, "rb") as file:
            with associated.opened(file, f"{associated.LABELS} and {EARLY_EXIT}") as archive:
                labels = associated.read_labels(archive)
                values = json.loads(associated.read(archive, EARLY_EXIT))
                end = min(info.header_offset for info in archive.infolist())
            if not isinstance(values, dict) or values.pop("format", None) not in _FORMATS:
                raise ValueError(
                    f"its {EARLY_EXIT} is not of format {' or '.join(map(str, _FORMATS))}"
                )
            # LiteRT itself notices no damage to weights, and would return other probabilities.
            if values.pop("crc32", None) != _checksum(file, end):
                raise ValueError("its bytes are damaged")
        try:
            return cls(labels=labels, **values)
        except TypeError as error:  # A key too few or too many, or a value of another kind.
            raise ValueError(f"its {EARLY_EXIT} is not valid: {error}") from error


def check_thresholds(thresholds, exits: int) -> tuple[float, ...]:
    """Returns one threshold for each exit but the last.

    Raises:
        ValueError: another number of them, or one that is not a finite number from 0.
    """
    _require(
        _are_numbers(thresholds, exits - 1) and all(threshold >= 0 for threshold in thresholds),
        "thresholds",
        f"{exits - 1} numbers from 0 (always stop) to 1, or above 1 (never stop)",
        thresholds,
    )
    return tuple(map(float, thresholds))


def check_index(index: int, operating_points) -> int:
    """Returns the index of an operating point.

    Raises:
        ValueError: there is no such point.
    """
    _require(
        isinstance(index, numbers.Integral) and 0 <= index < len(operating_points),
        "operating_point",
        f"an index from 0 to {len(operating_points) - 1}",
        index,
    )
    return int(index)


def _certificate(given, points):
    values = asdict(given) if isinstance(given, Certificate) else dict(given)
    shares = [values.get(name) for name in ("limit", "confidence", "observed", "bound")]
    index, images = values.get("index"), values.get("images")
    _require(
        values.keys() == Certificate.__annotations__.keys()
        and values["risk"] in RISKS
        and _are_numbers(shares, len(shares))
        and all(-1 <= share <= 1 for share in shares)
        and values["limit"] in INSIDE_0_1
        and values["confidence"] in INSIDE_0_1
        and all(type(number) is int for number in (index, images))
        and 0 <= index < len(points)
        and images > 0,
        "certificate",
        f"of a risk of {' or '.join(RISKS)}, with a limit and a confidence in (0, 1), for one of "
        "the operating points",
        values,
    )
    return Certificate(**values)


def _checksum(file, end):
    file.seek(0)
    checksum = 0
    while block := file.read(min(_BLOCK, end - file.tell())):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _are_numbers(values, count):
    """Whether these are so many finite numbers: json writes no others."""
    return (
        isinstance(values, Collection)
        and len(values) == count
        and all(isinstance(v, numbers.Real) and math.isfinite(v) for v in values)
    )


def _require(condition, name, accepted, received):
    if not condition:
        raise ArgumentError(name, accepted, Words(str(received)[:200]))
