"""What `compress` is asked for, checked: no Keras here, so that command lines know it too."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from kdtoolkit._checks import BELOW_1, ArgumentError, Integers, OneOf, check
from kdtoolkit.export import quantizations

STRUCTURES = ("weights", "channels", "2:4", "none")
SCOPES = ("layer", "global")
QUANTIZATIONS = (*quantizations.QUANTIZATIONS, "qat")
# What each structure prunes by default; 2:4 is a half by its nature.
_SPARSITIES = {"weights": 0.8, "channels": 0.5, "2:4": 0.5, "none": 0.0}


def _option(default, text):
    """A field, and a flag of the recipe whose help is the text."""
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Options:
    """How a network is compressed: see `kdtoolkit.compression.compress`.

    A sparsity that is None becomes the structure's usual one, the structure of a sparsity of 0
    `"none"`.

    Raises:
        ArgumentError: an attribute is not what is accepted, or does not suit another one.
    """

    structure: str = _option(
        "weights",
        f"What is pruned: {', '.join(STRUCTURES)}. Only channels make the network smaller and "
        "faster by themselves; zeros among weights are smaller when the file is compressed.",
    )
    sparsity: float | None = _option(
        None, "Share that is pruned, in [0, 1) (default: 0.8 of the weights, 0.5 of the channels)."
    )
    layers: Sequence[str] | None = _option(
        None,
        "Patterns of the names of the layers to prune, separated by commas (default: all that can "
        "lose channels; for weights all convolutions and dense layers but the first convolution, "
        "depthwise ones and small heads).",
    )
    threshold: str = _option(
        "layer",
        "Whether weights are compared within each layer or over all of them: layer or global.",
    )
    quantize: Sequence[str] = _option(
        ("int8",),
        f"Kinds of files, separated by commas: {', '.join(QUANTIZATIONS)} (int8 after training "
        "that knows of it).",
    )
    calibration_images: int = _option(256, "Training images that give int8 its ranges.")

    def __post_init__(self):
        check("structure", self.structure, OneOf(STRUCTURES))
        check("threshold", self.threshold, OneOf(SCOPES))
        if self.threshold == "global" and self.structure != "weights":
            accepted = f"layer for the structure {self.structure}, as it is not weights"
            raise ArgumentError("threshold", accepted, self.threshold)
        usual = _SPARSITIES[self.structure]
        sparsity = usual if self.sparsity is None else self.sparsity
        check("sparsity", sparsity, BELOW_1)
        if self.structure in ("2:4", "none") and sparsity != usual:
            accepted = f"{usual:g} for the structure {self.structure}"
            raise ArgumentError("sparsity", accepted, sparsity)
        object.__setattr__(self, "sparsity", sparsity)
        if sparsity == 0:
            object.__setattr__(self, "structure", "none")
        self._check_quantize()
        check("calibration_images", self.calibration_images, Integers(1))

    def _check_quantize(self):
        for kind in self.quantize:
            check("quantize", kind, OneOf(QUANTIZATIONS))
        kinds = list(self.quantize)
        if len(set(kinds)) < len(kinds):
            raise ArgumentError("quantize", "different kinds", kinds)
        if self.structure == "none" and kinds in ([], ["float32"]):
            raise ArgumentError("quantize", "more than float32 where nothing is pruned", kinds)

    @property
    def prunes(self) -> bool:
        return self.structure != "none"

    @property
    def pruned_name(self) -> str:
        """What the pruned network is called in a table."""
        return f"{100 * (self.sparsity or 0):g}% {self.structure}"

    @property
    def masks(self) -> bool:
        """Whether zeros stay in place, and weights are masked between the steps."""
        return self.structure in ("weights", "2:4")

    @property
    def kinds(self) -> list[str]:
        """The kinds of files besides float32, which every network has."""
        return [kind for kind in self.quantize if kind != "float32"]

    @property
    def calibrates(self) -> bool:
        return any(kind in quantizations.INTEGERS for kind in self.quantize)

    def calibration(self, kind: str, images):
        """The images that give a kind of file its ranges; None for the others."""
        return images if kind in quantizations.INTEGERS else None
