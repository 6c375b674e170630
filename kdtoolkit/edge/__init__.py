"""Runs classifiers that this package wrote with NumPy and ai-edge-litert alone.

    classifier = load("student.tflite")  # a `Classifier`, or an `EarlyExitClassifier`
    label, index, confidence, exit, milliseconds = classifier.predict(image)

From a shell: `python -m kdtoolkit.edge student.tflite image.png`, and, for how far the decisions of
an early-exit classifier may be trusted on images without labels: `python -m kdtoolkit.edge certify
early_exit.tflite *.png`.
"""

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

if TYPE_CHECKING:
    from kdtoolkit.edge import description as description
    from kdtoolkit.edge import package as package
    from kdtoolkit.edge.certify import Certificate as Certificate
    from kdtoolkit.edge.classifier import EarlyExitClassifier as EarlyExitClassifier
    from kdtoolkit.edge.classifier import Prediction as Prediction
    from kdtoolkit.edge.package import OperatingPoint as OperatingPoint
    from kdtoolkit.edge.package import Package as Package
    from kdtoolkit.edge.single import Classifier as Classifier
    from kdtoolkit.edge.single import load as load
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=("description", "package"),
        names={
            "Certificate": "certify",
            "Classifier": "single",
            "EarlyExitClassifier": "classifier",
            "OperatingPoint": "package",
            "Package": "package",
            "Prediction": "classifier",
            "load": "single",
        },
    )
