"""`python -m kdtoolkit.edge model.tflite image.png ...`: one line of text for each image."""

import sys
import warnings
from collections.abc import Sequence

import numpy as np

from kdtoolkit import _errors
from kdtoolkit._arguments import Parser
from kdtoolkit.data.wording import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Prints file, label, confidence, exit and milliseconds, tabs between; returns the status."""
    return _errors.guarded("kdtoolkit.edge", lambda: _main(argv))


def _main(argv):
    parser = Parser(
        prog="python -m kdtoolkit.edge",
        description="Classifies images with a packaged early-exit classifier.",
    )
    parser.add_argument("model", help=".tflite file written by kdtoolkit.export.to_early_exit")
    parser.add_argument("images", nargs="+", metavar="image", help="image file")
    parser.add_argument(
        "--operating_point",
        type=int,
        metavar="K",
        help="index of one of the model's operating points, cheapest first (default: the model's)",
    )
    parser.add_argument("--threads", type=int, default=1, help="threads a stage may use")
    try:
        arguments = parser.parse_args(argv)
        # Imported late, for --help and mistakes to answer at once.
        from kdtoolkit.edge.classifier import EarlyExitClassifier

        classifier = EarlyExitClassifier(arguments.model, arguments.threads)
        if arguments.operating_point is not None:
            classifier.operating_point = arguments.operating_point
        for path in arguments.images:
            label, _, confidence, exit_name, milliseconds = classifier.predict(_open(path))
            path = shown(path, len(path))  # in one column of one line
            print(f"{path}\t{shown(label)}\t{confidence:.4f}\t{exit_name}\t{milliseconds:.2f} ms")
    except ValueError as error:
        return _errors.fail("kdtoolkit.edge", error, status=2)
    return 0


def _open(path):
    try:
        import PIL  # noqa: F401

        from kdtoolkit.data import picture
    except ImportError as error:
        raise ValueError("Opening image files needs Pillow: pip install pillow") from error
    with (
        warnings.catch_warnings(action="ignore"),
        picture.opened(path) as image,
    ):
        return np.asarray(picture.upright(image))


if __name__ == "__main__":
    sys.exit(main())
