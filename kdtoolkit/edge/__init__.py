"""Runs a packaged early-exit classifier with NumPy and ai-edge-litert alone.

    classifier = EarlyExitClassifier("model.tflite")
    label, index, confidence, exit, milliseconds = classifier.predict(image)

From a shell: `python -m kdtoolkit.edge model.tflite image.png`, and, for how far its decisions may
be trusted on images without labels: `python -m kdtoolkit.edge certify model.tflite *.png`.
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
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=("description", "package"),
        names={
            "Certificate": "certify",
            "EarlyExitClassifier": "classifier",
            "OperatingPoint": "package",
            "Package": "package",
            "Prediction": "classifier",
        },
    )
