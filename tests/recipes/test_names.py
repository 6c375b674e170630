"""Names that command lines check without Keras are those that the library knows."""

from kdtoolkit.compression import options
from kdtoolkit.export import litert
from kdtoolkit.models import exits
from kdtoolkit.recipes import _run, born_again, self_distillation
from kdtoolkit.training import Patriarch, distribution


def test_names_agree():
    assert born_again._PATRIARCHS == Patriarch.KINDS
    assert _run._STRATEGIES == distribution.STRATEGIES
    assert self_distillation._HEADS == exits.HEADS
    assert (*litert.QUANTIZATIONS, "qat") == options.QUANTIZATIONS
