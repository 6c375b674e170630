"""`python -m kdtoolkit.edge model.tflite image.png ...`: one line of text for each image.

`python -m kdtoolkit.edge certify model.tflite image.png ...`: how far its decisions may be trusted.
"""

import sys
import warnings
from collections.abc import Sequence

import numpy as np

from kdtoolkit import _errors
from kdtoolkit._arguments import Parser
from kdtoolkit._checks import INSIDE_0_1, check
from kdtoolkit.data.wording import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Prints file, label, confidence, exit and milliseconds, tabs between; returns the status."""
    return _errors.guarded("kdtoolkit.edge", lambda: _main(argv))


def _main(argv):
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if argv[:1] == ["certify"]:
            return _certify(argv[1:])
        return _classify(argv)
    except ValueError as error:
        return _errors.fail("kdtoolkit.edge", error, status=2)


def _classify(argv):
    parser = Parser(
        prog="python -m kdtoolkit.edge",
        description="Classifies images with a .tflite file that kdtoolkit wrote: a classifier of "
        "one graph, or a packaged early-exit classifier.",
        epilog="`certify MODEL IMAGES...` says how far its decisions may be trusted.",
    )
    _add_inputs(parser)
    parser.add_argument(
        "--operating_point",
        type=int,
        metavar="K",
        help="index of one of the model's operating points, cheapest first (default: the model's)",
    )
    arguments = parser.parse_args(argv)
    # Imported late, for --help and mistakes to answer at once.
    from kdtoolkit.edge.single import Classifier, load

    classifier = load(arguments.model, arguments.threads)
    if arguments.operating_point is not None:
        if isinstance(classifier, Classifier):
            raise ValueError(
                "--operating_point applies to a file with early exits. "
                f"Received: --operating_point={arguments.operating_point}, {arguments.model!r}"
            )
        classifier.operating_point = arguments.operating_point
    for path in arguments.images:
        label, _, confidence, exit_name, milliseconds = classifier.predict(_open(path, classifier))
        path = shown(path, len(path))  # in one column of one line
        print(f"{path}\t{shown(label)}\t{confidence:.4f}\t{exit_name}\t{milliseconds:.2f} ms")
    return 0


def _certify(argv):
    parser = Parser(
        prog="python -m kdtoolkit.edge certify",
        description="Finds the cheapest operating point of a packaged early-exit classifier whose "
        "decisions differ from the whole network's seldom enough, on all images like these. Their "
        "classes need not be known. Ends with status 1 where there is none.",
    )
    _add_inputs(parser)
    parser.add_argument("--limit", type=float, default=0.01, help="share of decisions (0.01)")
    parser.add_argument("--confidence", type=float, default=0.9, help="in (0, 1) (0.9)")
    arguments = parser.parse_args(argv)
    for name in ("limit", "confidence"):
        check(name, getattr(arguments, name), INSIDE_0_1)
    from kdtoolkit.edge.certify import certify
    from kdtoolkit.edge.decisions import decide
    from kdtoolkit.edge.single import Classifier, load

    classifier = load(arguments.model, arguments.threads)
    if isinstance(classifier, Classifier):
        raise ValueError(
            "certify takes a file with early exits: what it would certify are the early ones. "
            f"Received: {arguments.model!r}"
        )
    # (exits, images, classes)
    logits = np.stack(
        [classifier.logits(_open(path, classifier)) for path in arguments.images], axis=1
    )
    decisions = [
        decide(logits, classifier.temperatures, point.thresholds)[0]
        for point in classifier.operating_points
    ]
    found = certify(
        *(decisions, logits[-1].argmax(axis=-1)),
        limit=arguments.limit,
        confidence=arguments.confidence,
    )
    if found.index is not None:
        cost = classifier.operating_points[found.index].cost
        print(f"operating point {found.index} (mean cost {cost:.3f}): {found}")
        return 0
    print(found)
    return 1


def _add_inputs(parser):
    parser.add_argument("model", help=".tflite file that kdtoolkit wrote")
    parser.add_argument("images", nargs="+", metavar="image", help="image file")
    parser.add_argument("--threads", type=int, default=1, help="threads it may use")


def _open(path, classifier):
    try:
        import PIL  # noqa: F401

        from kdtoolkit.data import picture
    except ImportError as error:
        raise ValueError("Opening image files needs Pillow: pip install pillow") from error
    with (
        warnings.catch_warnings(action="ignore"),
        picture.opened(path, classifier.image_shape[:2]) as image,
    ):
        return np.asarray(picture.upright(image))


if __name__ == "__main__":
    sys.exit(main())
