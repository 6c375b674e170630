"""The kinds of LiteRT files; no TensorFlow, for command lines."""

INTEGERS = ("int8", "uint8")
"""Those that need ranges, which images or training give."""

QUANTIZATIONS = ("float32", "float16", "dynamic_range", "int4", *INTEGERS)
"""Those that `to_litert` writes; `"int4"` where `export.int4.check_installed` finds it can."""

CALIBRATED = (*INTEGERS, "mixed")
"""Those whose ranges images give; mixed ones are those of `to_mixed`."""

FILES = (*QUANTIZATIONS, "mixed")
"""All kinds."""
