"""What may be chosen of a packaged early exit; no Keras, for command lines."""

from kdtoolkit._checks import Interval, OneOf

QUANTIZATIONS = ("float32", "float16", "dynamic_range", "int8")  # features are handed on as floats
COST_UNIT = OneOf(("macs", "milliseconds"))
MAX_ACCURACY_DROP = Interval(0, 1, open_high=True)
BUDGET = Interval(0, 1, open_low=True)
