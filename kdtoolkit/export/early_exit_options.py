"""What may be chosen of a packaged early exit; no Keras, for command lines."""

from kdtoolkit._checks import ABOVE_0_TO_1, BELOW_1, INSIDE_0_1, OneOf
from kdtoolkit.export import quantizations

# Features are handed on as floats.
QUANTIZATIONS = tuple(kind for kind in quantizations.QUANTIZATIONS if kind not in ("uint8", "int4"))
COST_UNIT = OneOf(("macs", "milliseconds"))
MAX_ACCURACY_DROP = BELOW_1
BUDGET = ABOVE_0_TO_1
CERTIFY = INSIDE_0_1
CONFIDENCE = INSIDE_0_1
