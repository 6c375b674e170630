"""Runs a packaged early-exit classifier with NumPy and ai-edge-litert alone.

    classifier = EarlyExitClassifier("model.tflite")
    label, index, confidence, exit, milliseconds = classifier.predict(image)

From a shell: `python -m kdtoolkit.edge model.tflite image.png`.
"""

from kdtoolkit._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    names={
        "EarlyExitClassifier": "classifier",
        "OperatingPoint": "package",
        "Prediction": "classifier",
    },
)
