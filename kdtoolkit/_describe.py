"""Shows what a network costs, by part and by exit, or what a .tflite file holds."""

import os
from collections.abc import Sequence

from kdtoolkit import _errors
from kdtoolkit._arguments import Parser

_IMAGE_SIZE, _CLASSES = 32, 10
_LITERT = ".tflite"


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit describe MODEL [--flag=value ...]` and returns the exit status."""
    try:
        arguments = _parse(argv)
        if arguments.model.endswith(_LITERT):
            from kdtoolkit.edge import description

            lines = description.lines(description.describe(arguments.model))
        else:
            lines = _lines(_network(arguments))
        print("\n".join(lines))
    except ValueError as error:
        return _errors.fail("describe", error, status=2)
    return 0


def _parse(argv):
    """What was asked for; all that can be wrong without looking into a file is found here."""
    parser = Parser(prog="kdtoolkit describe", description=__doc__)
    parser.add_argument(
        "model", metavar="MODEL", help="name of a network, a .keras or a .tflite file"
    )
    parser.add_argument(
        "--image_size",
        type=int,
        help=f"height and width of the images of a named network (default: {_IMAGE_SIZE})",
    )
    parser.add_argument(
        "--classes", type=int, help=f"classes of a named network (default: {_CLASSES})"
    )
    parser.add_argument("--exits", action="store_true", help="attach exits first")
    arguments = parser.parse_args(argv)
    if _is_file(arguments):
        for flag in ("image_size", "classes"):
            if getattr(arguments, flag) is not None:
                raise ValueError(f"--{flag} is for networks by name. Received: {arguments.model}")
        if not os.path.isfile(arguments.model):
            raise ValueError(f"MODEL must be an existing file. Received: {arguments.model}")
        if arguments.exits and arguments.model.endswith(_LITERT):
            raise ValueError(f"--exits is for networks. Received: {arguments.model}")
        return arguments
    from kdtoolkit.models import registry

    try:
        smallest = registry.validate(arguments.model).smallest
    except ValueError as error:
        raise ValueError(
            f"MODEL must be a .keras file, a .tflite file or a network's name: {error}"
        ) from error
    arguments.image_size = _IMAGE_SIZE if arguments.image_size is None else arguments.image_size
    arguments.classes = _CLASSES if arguments.classes is None else arguments.classes
    for flag, least in (("image_size", smallest), ("classes", 2)):
        value = getattr(arguments, flag)
        if value < least:
            raise ValueError(
                f"--{flag} must be at least {least} for {arguments.model}. "
                f"Received: --{flag}={value}"
            )
    return arguments


def _is_file(arguments):
    return arguments.model.endswith((".keras", _LITERT))


def _network(arguments):
    from kdtoolkit.recipes._command import import_libraries

    import_libraries()
    from kdtoolkit import models
    from kdtoolkit.models import saved

    if _is_file(arguments):
        network = saved.load_network(arguments.model)
    else:
        shape = (arguments.image_size, arguments.image_size, 3)
        network = models.build(arguments.model, shape, arguments.classes)
    return models.add_exits(network) if arguments.exits else network


def _lines(network):
    from kdtoolkit import models
    from kdtoolkit._tables import aligned

    cells = [("", "parameters", "MACs", "activation bytes")]
    for row in models.describe(network):
        numbers = (row.parameters, row.macs, row.activation_bytes)
        cells.append((row.name, *(f"{number:,}" for number in numbers)))
    yield aligned(cells, left=1, rule=False)
    height, width, channels = network.input_shape[1:]
    yield ""
    yield f"For one image of {height}x{width}x{channels}. Activations: most bytes of feature maps"
    yield "at the same time, with normalisation and activations in place."
    if isinstance(network.output, dict):
        yield "exit_k: all that this exit needs, from the image to its logits."
