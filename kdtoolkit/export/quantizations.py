"""The kinds of LiteRT files; no TensorFlow, for command lines."""

INTEGERS = ("int8", "uint8")
"""Those that need ranges, which images or training give."""

QUANTIZATIONS = ("float32", "float16", "dynamic_range", *INTEGERS)
"""Those that `to_litert` writes."""

CALIBRATED = (*INTEGERS, "mixed")
"""Those whose ranges images give; mixed ones are those of `to_mixed`."""

FILES = (*QUANTIZATIONS, "mixed")
"""All kinds."""
