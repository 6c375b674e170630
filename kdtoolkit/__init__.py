"""kdtoolkit: knowledge distillation and edge deployment of image classifiers for Keras 3.

Importing the package imports neither TensorFlow nor Keras; each sub-package is loaded when it is
first used, so that command lines answer at once and :mod:`kdtoolkit.edge` runs without both.
"""

import os
import sys

# Before anything that takes time: in a command Ctrl-C is one line from here on. A command is
# `python -m kdtoolkit...`, of which Python says -m while it looks for the module, or pip's script.
if (
    any(argument.partition(".")[0] == __name__ for argument in sys.orig_argv)
    if sys.argv[:1] == ["-m"]
    else os.path.basename("".join(sys.argv[:1])) in ("kdtoolkit", "kdtoolkit.exe")
):
    from kdtoolkit import _errors

    _errors.begin()

from typing import TYPE_CHECKING

from kdtoolkit._lazy import attach

__version__ = "0.2.0"

if TYPE_CHECKING:
    from kdtoolkit import analysis as analysis
    from kdtoolkit import comparison as comparison
    from kdtoolkit import compression as compression
    from kdtoolkit import data as data
    from kdtoolkit import edge as edge
    from kdtoolkit import export as export
    from kdtoolkit import front as front
    from kdtoolkit import generations as generations
    from kdtoolkit import intervals as intervals
    from kdtoolkit import losses as losses
    from kdtoolkit import methods as methods
    from kdtoolkit import models as models
    from kdtoolkit import report as report
    from kdtoolkit import study as study
    from kdtoolkit import training as training
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        modules=(
            "analysis",
            "comparison",
            "compression",
            "data",
            "edge",
            "export",
            "front",
            "generations",
            "intervals",
            "losses",
            "methods",
            "models",
            "report",
            "study",
            "training",
        ),
    )
