"""What `compress` is asked for, checked: no Keras here, so that command lines know it too."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from kdtoolkit._checks import ABOVE_0_TO_1, BELOW_1, ArgumentError, Integers, OneOf, check
from kdtoolkit.compression.target import FORMS, Target
from kdtoolkit.export import int4, quantizations

STRUCTURES = ("weights", "channels", "2:4", "none")
SCOPES = ("layer", "global")
IMPORTANCES = ("l1", "l2", "group_norm", "bn_scale", "fpgm", "lamp", "taylor", "random")
QUANTIZATIONS = (*quantizations.FILES, "qat")
# What each structure prunes by default; 2:4 is a half by its nature.
_OF_CHANNELS = ("importance", "target", "limit", "rounds", "rankings")
_SPARSITIES = {"weights": 0.8, "channels": 0.5, "2:4": 0.5, "none": 0.0}


def _option(default, text):
    """A field, and a flag of the recipe whose help is the text."""
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True)
class Options:
    """How a network is compressed: see `kdtoolkit.compression.compress`.

    A sparsity that is None becomes the structure's usual one, where there is no target; the
    structure of a sparsity of 0 `"none"`; one pattern of layers a list of it.

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
        "Whether weights, or channels, are compared within each layer, or each group of layers "
        "whose channels are tied, or over all of them: layer or global.",
    )
    importance: str = _option(
        "l1", f"What a channel is worth, the least of which go: {', '.join(IMPORTANCES)}."
    )
    target: str | None = _option(
        None,
        "Instead of a sparsity of channels, what is to stay of a cost, as a share or an amount: "
        f"{FORMS}. Bytes and milliseconds (LiteRT on this machine, one thread, an image) are those "
        "of the .tflite file of the first kind in --quantize, else of float32.",
    )
    limit: float = _option(
        1.0, "Largest share of a layer's channels that goes in a round, in (0, 1]."
    )
    rounds: int = _option(
        1, "Rounds in which channels go, each followed by a fine-tuning of its own."
    )
    rankings: int = _option(
        1,
        "How often channels are ranked in a round, what is left anew each time, and an equal part "
        "goes; with --threshold=global 10 are better than 1 where much goes.",
    )
    quantize: Sequence[str] = _option(
        ("int8",),
        f"Kinds of files, separated by commas: {', '.join(QUANTIZATIONS)} (mixed: int8, but for "
        "what it spoils; qat: int8 after training that knows of it; int4 is an extra).",
    )
    max_accuracy_drop: float = _option(
        0.01, "Share of the validation images that a mixed file may lose against float32."
    )
    calibration_images: int = _option(
        256, "Training images that give int8 its ranges, and taylor its gradients."
    )

    def __post_init__(self):
        if isinstance(self.layers, str):
            object.__setattr__(self, "layers", [self.layers])
        check("structure", self.structure, OneOf(STRUCTURES))
        check("threshold", self.threshold, OneOf(SCOPES))
        if self.threshold == "global" and self.structure not in ("weights", "channels"):
            accepted = f"layer for the structure {self.structure}"
            raise ArgumentError("threshold", accepted, self.threshold)
        self._check_channels()
        usual = _SPARSITIES[self.structure]
        sparsity = usual if self.sparsity is None else self.sparsity
        check("sparsity", sparsity, BELOW_1)
        if self.structure in ("2:4", "none") and sparsity != usual:
            accepted = f"{usual:g} for the structure {self.structure}"
            raise ArgumentError("sparsity", accepted, sparsity)
        object.__setattr__(self, "sparsity", None if self.target else sparsity)
        if sparsity == 0:
            object.__setattr__(self, "structure", "none")
        self._check_quantize()
        check("calibration_images", self.calibration_images, Integers(1))

    def _check_channels(self):
        check("importance", self.importance, OneOf(IMPORTANCES))
        check("limit", self.limit, ABOVE_0_TO_1)
        check("rounds", self.rounds, Integers(1))
        check("rankings", self.rankings, Integers(1))
        if self.target is not None:
            Target.parse(self.target)
            if self.sparsity is not None:
                raise ArgumentError("target", "left out beside a sparsity", self.target)
        if self.structure == "channels":
            return
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in _OF_CHANNELS and value != option.default:
                accepted = f"left out for the structure {self.structure}"
                raise ArgumentError(option.name, accepted, value)

    def _check_quantize(self):
        for kind in self.quantize:
            check("quantize", kind, OneOf(QUANTIZATIONS))
        kinds = list(self.quantize)
        if "int4" in kinds:
            int4.check_installed("quantize")
        check("max_accuracy_drop", self.max_accuracy_drop, BELOW_1)
        if "mixed" not in kinds and self.max_accuracy_drop != Options.max_accuracy_drop:
            accepted = "left out where there is no mixed file"
            raise ArgumentError("max_accuracy_drop", accepted, self.max_accuracy_drop)
        of_file = self.target and Target.parse(self.target).cost in ("bytes", "ms")
        if of_file and self.target_kind == "mixed":
            accepted = (
                "of macs or parameters where the first kind of file is mixed: what stays in float "
                "in it is found after channels have gone"
            )
            raise ArgumentError("target", accepted, self.target)
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
        goal = self.target or f"{100 * (self.sparsity or 0):g}%"
        return f"{goal} {self.structure}"

    @property
    def masks(self) -> bool:
        """Whether zeros stay in place, and weights are masked between the steps."""
        return self.structure in ("weights", "2:4")

    @property
    def trains(self) -> bool:
        """Whether anything is fine-tuned."""
        return self.prunes or "qat" in self.kinds

    @property
    def kinds(self) -> list[str]:
        """The kinds of files besides float32, which every network has."""
        return [kind for kind in self.quantize if kind != "float32"]

    @property
    def target_kind(self) -> str:
        """The kind of file whose bytes or milliseconds a target is about."""
        return self.quantize[0] if self.quantize else "float32"

    @property
    def calibrates(self) -> bool:
        return any(kind in quantizations.CALIBRATED for kind in self.quantize)

    def calibration(self, kind: str, images):
        """The images that give a kind of file its ranges; None for the others."""
        return images if kind in quantizations.CALIBRATED else None
