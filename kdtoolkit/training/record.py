"""What a finished training leaves: its network, and figures that are bound to it by checksums.

Nothing here imports TensorFlow: a recipe looks at other runs' directories before it starts.
"""

from pathlib import Path

from kdtoolkit import files

NETWORK, RESULTS = "network.keras", "results.json"


def write(directory: Path, figures: dict, training: dict) -> None:
    """Writes the figures of the network that lies in the directory: the mark of being finished.

    Args:
        directory: of the training.
        figures: what JSON can hold.
        training: which training it is, such as its name, generation and seed.
    """
    network = files.sha256(directory / NETWORK)
    record = {**figures, "training": training, "network_sha256": network}
    files.write_record(directory / RESULTS, record)


def read(directory: Path, training: dict) -> dict:
    """Returns the figures of a finished training, once they and its network are verified.

    Args:
        directory: of the training.
        training: what it must be, or a part of that.

    Raises:
        OSError, ValueError: a file cannot be read; it is damaged, or of another training.
    """
    figures = files.read_record(directory / RESULTS)
    found, checksum = figures.pop("training", {}), figures.pop("network_sha256", None)
    if not isinstance(found, dict):
        raise ValueError(f"{RESULTS} does not say which training it is of")
    differs = [
        f"{name} {found.get(name)!r}, not {value!r}"
        for name, value in training.items()
        if found.get(name) != value
    ]
    if differs:
        raise ValueError(f"{RESULTS} is that of another training: {'; '.join(differs)}")
    if files.sha256(directory / NETWORK) != checksum:
        raise ValueError(f"{NETWORK} is not the one that {RESULTS} has the checksum of")
    return figures
