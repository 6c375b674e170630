"""What can be chosen of a network; no Keras, for command lines."""

from kdtoolkit._checks import OneOf

HEADS = OneOf(("bottleneck", "attention"))
"""Of the exits that `add_exits` attaches."""
