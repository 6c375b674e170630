"""What may be chosen of a packaged early exit; no Keras, for command lines."""

from kdtoolkit._checks import BELOW_1, INSIDE_0_1, Interval, OneOf
from kdtoolkit.export import quantizations

# Features are handed on as floats.
QUANTIZATIONS = tuple(kind for kind in quantizations.QUANTIZATIONS if kind != "uint8")
COST_UNIT = OneOf(("macs", "milliseconds"))
MAX_ACCURACY_DROP = BELOW_1
BUDGET = Interval(0, 1, open_low=True)
CERTIFY = INSIDE_0_1
CONFIDENCE = INSIDE_0_1
