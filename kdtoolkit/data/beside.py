"""What plain Keras must be told to use a network, beside it: network.json for network.keras.

image_shape   [height, width, channels]
mean, std     one a channel: the network takes (pixels / 255 - mean) / std
labels        names of the classes, in the order of what the network returns
"""

from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import files
from kdtoolkit.data.preprocessing import Preprocessing


def write(network: Path, preprocessing: Preprocessing, labels: Sequence[str]) -> None:
    """Writes the file beside a network's, atomically."""
    values = {**preprocessing.to_json(), "labels": list(labels)}
    files.write_json(_beside(network), values)


def read(network: Path) -> tuple[Preprocessing, list[str]] | None:
    """Returns what `write` wrote beside a network's file; None where there is no such file.

    Raises:
        ValueError: it is damaged, or a file of something else.
    """
    path = _beside(network)
    try:
        values = files.read_json(path)
        return Preprocessing.from_json(values), [str(label) for label in values["labels"]]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} does not say what {Path(network).name} takes: {error!r}"
        ) from error


def _beside(network):
    return Path(network).with_suffix(".json")
