"""Writes a run's network as one .keras file, with the labels beside it."""

import math
from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import _errors
from kdtoolkit._arguments import Parser
from kdtoolkit.data import beside
from kdtoolkit.data.preprocessing import Preprocessing
from kdtoolkit.data.wording import shown
from kdtoolkit.recipes._command import RunError, import_libraries
from kdtoolkit.recipes._outputs import network_path

_IMAGES = 64  # that the file and the network are compared on


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit export NETWORK --output=FILE.keras` and returns the exit status."""
    try:
        arguments, stored = _parse(argv)
        import_libraries()
        print(_export(arguments, stored))
    except ValueError as error:
        return _errors.fail("export", error, status=2)
    except RunError as error:
        return _errors.fail("export", error, status=1)
    return 0


def _parse(argv):
    """What was asked for, and the mean, deviation and labels that are known of the network."""
    parser = Parser(prog="kdtoolkit export", description=__doc__)
    parser.add_argument(
        "network", metavar="NETWORK", help="a recipe's output directory, or a .keras file"
    )
    parser.add_argument("--output", required=True, help="the file that is written, FILE.keras")
    parser.add_argument(
        "--with_preprocessing",
        action="store_true",
        help="take images of bytes, uint8 from 0 to 255, and return probabilities, with layers of "
        "plain Keras; otherwise the network is written as it is, normalised images to logits",
    )
    parser.add_argument("--exit", help="exit to keep of a multi-exit network (default: deepest)")
    for name, what in (("mean", "mean"), ("std", "deviation")):
        parser.add_argument(
            f"--{name}",
            help=f"{what} of each channel of the images from 0 to 1, separated by commas, for a "
            "network that has none stored beside it",
        )
    arguments = parser.parse_args(argv)
    arguments.network = network_path(arguments.network, "NETWORK")
    try:
        _check_output(Path(arguments.output), arguments.network)
    except OSError as error:
        raise ValueError(f"--output={arguments.output} cannot be used: {error.strerror}") from error
    stored = beside.read(arguments.network)
    arguments.mean, arguments.std = given = [
        _numbers("mean", arguments.mean),
        _numbers("std", arguments.std),
    ]
    if stored is None and None in given:
        raise ValueError(
            f"NETWORK has no {arguments.network.stem}.json beside it that says how its images are "
            "normalised: --mean and --std must. Received: "
            + ("neither" if given == [None, None] else "one of them")
        )
    if stored is not None and given != [None, None]:
        raise ValueError(
            f"--mean and --std are for a network that has none stored; "
            f"{arguments.network.with_suffix('.json')} has"
        )
    return arguments, stored


def _check_output(output, network):
    """Checks that a file can be written, over nothing but what an earlier export left."""
    if "\0" in str(output) or output.suffix != ".keras" or not output.parent.is_dir():
        raise ValueError(
            "--output must be a .keras file in a directory that exists. "
            f"Received: --output={shown(output)}"
        )
    if output.is_dir():
        raise ValueError(f"--output must be a file. Received a directory: --output={output}")
    if output.exists() and output.samefile(network):
        raise ValueError(f"--output must be another file than NETWORK. Received: {output}")
    try:
        beside.read(output)
    except ValueError as error:
        raise ValueError(
            f"--output={output} would replace {output.with_suffix('.json')}, which is a file of "
            "something else. Accepted: another name"
        ) from error


def _numbers(flag, text):
    """The numbers that a flag gives, if it is given; deviations are positive."""
    if text is None:
        return None
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = [math.nan]
    least = 0 if flag == "std" else -math.inf
    if not all(least < number < math.inf for number in numbers):
        kind = "positive numbers" if flag == "std" else "numbers"
        raise ValueError(f"--{flag} must be {kind}, separated by commas. Received: --{flag}={text}")
    return numbers


def _export(arguments, stored):
    import numpy as np

    from kdtoolkit import export
    from kdtoolkit.models import saved

    network = saved.load_classifier(arguments.network, exit=arguments.exit)
    shape, classes = network.input_shape[1:], network.output_shape[-1]
    if stored is None:
        preprocessing = Preprocessing(shape, arguments.mean, arguments.std)
        labels = [str(index) for index in range(classes)]
    else:
        preprocessing, labels = stored
    output = Path(arguments.output)
    if not arguments.with_preprocessing:
        _replace(output, network.save, preprocessing, labels)
        return f"{output}: normalised images to logits"
    images = np.random.default_rng(0).integers(0, 256, (_IMAGES, *shape), np.uint8)
    differences = []

    def write(scratch):
        exported = export.to_keras(network, scratch, preprocessing)
        parity = export.measure(exported, network, preprocessing, images)
        if parity.failure:
            raise RunError(f"{output} ({exported.quantization}) {parity.failure}")
        differences.append(parity.max_difference)

    # Of what the file takes: bytes as they are.
    channels = shape[-1]
    as_they_are = Preprocessing(shape, [0] * channels, [1 / 255] * channels)
    _replace(output, write, as_they_are, labels)
    return (
        f"{output}: images of bytes {shape} to probabilities of {classes} classes, "
        f"within {differences[0]:.1e} of the network's on {_IMAGES} images of noise"
    )


def _replace(output, write, preprocessing, labels):
    """Writes a network and what lies beside it, never one of them beside another's."""
    from kdtoolkit import files

    def write_alone(scratch):
        write(scratch)
        files.remove(output.with_suffix(".json"))

    files.write_atomically(output, write_alone)
    beside.write(output, preprocessing, labels)
