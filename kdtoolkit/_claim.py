"""An output directory of a library call, which goes on where a call of its arguments stopped."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import keras

from kdtoolkit import files
from kdtoolkit.data import Data
from kdtoolkit.data.wording import shown
from kdtoolkit.models.architecture import architecture
from kdtoolkit.models.contract import add_weights
from kdtoolkit.training.distribution import from_chief


@contextlib.contextmanager
def held(
    strategy,
    output_dir: Path,
    name: str,
    arguments: Mapping[str, object],
    claim: Callable[[], object] | None = None,
) -> Iterator[None]:
    """Holds a directory as `claimed` does, the chief of several workers alone.

    Args:
        strategy: of the run.
        output_dir, name, arguments: of `claimed`.
        claim: of a caller that holds the directory itself: called in its place, before the
            arguments are compared; None for one that does not.
    """
    with contextlib.ExitStack() as stack:
        if claim is None:
            own = claimed(output_dir, name, arguments)
            from_chief(strategy, lambda: stack.enter_context(own))
        else:
            claim()
            check_arguments(strategy, output_dir, name, arguments)
        yield


def check_arguments(strategy, output_dir: Path, name: str, arguments: Mapping[str, object]) -> None:
    """Stores arguments in a directory that is held, or finds that those stored there are the same.

    Of several workers the chief alone does this.

    Args:
        strategy: of the run.
        output_dir, name, arguments: of `claimed`.

    Raises:
        OtherRunError: they are others; what differs is named.
    """
    from_chief(strategy, lambda: _check_arguments(output_dir, output_dir / name, arguments))


@contextlib.contextmanager
def claimed(output_dir: Path, name: str, arguments: Mapping[str, object]) -> Iterator[None]:
    """Holds a directory, once the arguments that are stored in it are these.

    Args:
        output_dir: made if it is not there; what a killed process left half-written goes.
        name: of the file that stores the arguments.
        arguments: name -> value that JSON can hold.

    Raises:
        OtherRunError: it belongs to other arguments; what differs is named.
        InUseError: another process, or thread, holds it.
    """
    files.make_directory(output_dir)
    with files.locked(output_dir):
        files.clear_scratch(output_dir)
        _check_arguments(output_dir, output_dir / name, arguments)
        yield


def _check_arguments(output_dir, path, arguments):
    """Stores the arguments, or finds that the directory's are the same."""
    if not path.exists():
        files.write_json(path, arguments)
        return
    stored = files.read_json(path)
    arguments = json.loads(json.dumps(arguments))  # a tuple is stored as a list
    differs = [
        f"{name}={shown(stored.get(name))} there, {name}={value} here"
        for name, value in arguments.items()
        if stored.get(name) != value
    ]
    if differs:
        raise files.OtherRunError(
            "Argument `output_dir` must be a new directory or one of the same arguments. "
            f"Received: output_dir={output_dir}, with {'; '.join(differs)}"
        )


def described_data(data: Data) -> dict[str, object]:
    """Returns stored arguments that know data: how much there is, for people, and a SHA-256."""
    splits = (data.train, data.validation, data.test)
    digest = hashlib.sha256("".join(split.fingerprint() for split in splits).encode())
    return {
        "training images": len(data.train),
        "classes": data.info.classes,
        "data": digest.hexdigest(),
    }


def fingerprint(network: keras.Model) -> str:
    """Returns a SHA-256 of a network and its weights, by which a stored argument knows it."""
    digest = hashlib.sha256(_architecture(network))
    add_weights(digest, network)
    return digest.hexdigest()


def design(network: keras.Model) -> str:
    """Returns a SHA-256 of a network's architecture, by which a stored argument knows what it is.

    The function that builds a network is an argument too, and cannot be stored.
    """
    return hashlib.sha256(_architecture(network)).hexdigest()


def _architecture(network):
    """The architecture in float32: a run that goes on computes as suits the machine it is on."""
    return re.sub('"(mixed_)?bfloat16"', '"float32"', architecture(network)).encode()
