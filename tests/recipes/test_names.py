"""Names that command lines check without Keras are those that the library knows."""

from kdtoolkit.compression import options
from kdtoolkit.export import litert
from kdtoolkit.models import exits
from kdtoolkit.recipes import born_again, self_distillation
from kdtoolkit.training import Patriarch


def test_names_agree():
    assert born_again._PATRIARCHS == Patriarch.KINDS
    assert self_distillation._HEADS == exits.HEADS
    assert (*litert.QUANTIZATIONS, "qat") == options.QUANTIZATIONS
