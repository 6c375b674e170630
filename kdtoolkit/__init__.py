"""kdtoolkit: knowledge distillation and edge deployment of image classifiers for Keras 3.

Importing the package imports neither TensorFlow nor Keras; each sub-package is loaded when it is
first used, so that command lines answer at once and :mod:`kdtoolkit.edge` runs without both.
"""

import sys

# What Python says while it looks for the module of `python -m kdtoolkit...`.
if sys.argv[:1] == ["-m"] and any(a.partition(".")[0] == __name__ for a in sys.orig_argv):
    from kdtoolkit import _errors

    _errors.begin()

from kdtoolkit._lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(
    __name__,
    modules=(
        *("analysis", "compression", "data", "edge", "export", "generations", "losses", "models"),
        "training",
    ),
)
