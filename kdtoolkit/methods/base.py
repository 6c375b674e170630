"""What a method of teaching is, and what it is given.

A method is a frozen dataclass. Its fields are its published hyper-parameters, and it says which
term it adds to a student's loss; the train step does everything else, once. Nothing here imports
Keras, which a method imports when a term is computed: command lines are checked with these.
"""

import abc
import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from kdtoolkit._checks import ArgumentError
from kdtoolkit._types import Network, Tensor

Pairs = tuple[tuple[str, str], ...]
"""Names of layers, `(student_layer, teacher_layer)`."""


def option(default: object, text: str, accepted: object = None) -> Any:
    """A field of a method that is a hyper-parameter, and a flag of every recipe.

    Args:
        default: the published value.
        text: what it is, one sentence: the help of its flag.
        accepted: an `Interval`, a `OneOf`, or anything else with
            `__contains__` and a `str()` that follows "must be"; None where the type says enough.
    """
    return dataclasses.field(default=default, metadata={"text": text, "accepted": accepted})


@dataclass(frozen=True)
class Outputs:
    """What a network returns for a batch, as far as a method asked for it.

    Attributes:
        logits: float32 `(batch, classes)`.
        features: of the method's layers, in the order of its pairs; a student's have gone through
            its projector.
        embedding: pooled features, `(batch, channels)`; None if the method did not ask.
    """

    logits: Any
    features: Sequence[Any] = ()
    embedding: Any = None


@dataclass(frozen=True)
class Batch:
    """What a method is given of a batch, or of a replica's part of it.

    Attributes:
        labels: class indices, or rows of probabilities.
        student: `Outputs` of the network that learns.
        teacher: `Outputs` of the one that teaches, float32, without gradient.
        mean: mean over the global batch of one value per sample, `(batch,)`.
        gather: rows `(batch, ...)` of all replicas, in one order, with their gradients: what
            relates samples to each other must see them all.
        uniform: random numbers in [0, 1) of the shape of its argument, a function of seed, step
            and place in the global batch.
        epoch: float32 scalar, the epoch in `fit`, counted from 0.
        epochs: float32 scalar, how many `fit` was asked for.
    """

    labels: Any
    student: Outputs
    teacher: Outputs
    mean: Callable
    gather: Callable
    uniform: Callable
    epoch: Any
    epochs: Any

    def of_each(self, value: Tensor) -> Tensor:
        """A value of the whole global batch as that of each of its samples, `(batch,)`.

        Its mean over them is the value again.
        """
        from keras import ops

        return ops.broadcast_to(value, ops.shape(self.student.logits)[:1])

    def warmup(self, share: float) -> Tensor:
        """A factor that rises linearly to 1 over the first `share` of the epochs.

        `min((epoch + 1) / (share epochs), 1)`, float32 scalar.
        """
        from keras import ops

        return ops.minimum((self.epoch + 1) / ops.maximum(share * self.epochs, 1.0), 1.0)


class _Options:
    """A frozen dataclass whose options are checked."""

    name: ClassVar[str]

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()

    def __post_init__(self):
        for field in options(type(self)):
            accepted, value = field.metadata["accepted"], getattr(self, field.name)
            if accepted is not None and value not in accepted:
                self.refuse(field.name, str(accepted), value)

    def refuse(self, argument: str, accepted: str, received: object, hint: str = "") -> NoReturn:
        """Raises an `ArgumentError` about an option of this method."""
        raise ArgumentError(argument, accepted, received, hint, owner=self.name)


def options(of: Any) -> tuple[dataclasses.Field, ...]:
    """The fields of a method or correction, or of its class, that are options."""
    return tuple(field for field in dataclasses.fields(of) if "text" in field.metadata)


@dataclass(frozen=True)
class Method(_Options):
    """A way to teach: what it adds to a student's loss.

    A subclass is a frozen dataclass whose fields are made by `option`, and defines `term`,
    `label_weight` or both. Its docstring begins with paper and equation.

    Attributes:
        name: on command lines, in results, and of the loss term; by default the class' name in
            lower case with underscores. In `train_step`, `fit`'s logs hold a term of this name.
        needs_embedding: whether `Outputs.embedding` is read.
        relates_samples: whether samples of a batch are compared with each other: a batch must have
            two at least.
    """

    needs_embedding: ClassVar[bool] = False
    relates_samples: ClassVar[bool] = False

    def term(self, batch: Batch) -> Tensor | None:
        """The term it adds: float32 `(batch,)`, weighted."""
        return None

    def label_weight(self, batch: Batch) -> Tensor | float | None:
        """What the cross-entropy with the labels is multiplied by: a number or `(batch,)`.

        None where a method leaves it as it is: a factor of 1 would be an operation, and other last
        bits.
        """
        return None

    def pairs(self, network: Network, teacher: Network) -> Pairs:
        """The layers that it compares, given both networks."""
        return ()

    def projector(self, student: Tensor, teacher: Tensor, name: str) -> Tensor:
        """What a student's features go through before they are compared.

        Args:
            student, teacher: symbolic outputs of a pair's layers.
            name: prefix for the names of layers.

        Returns:
            A symbolic tensor made of `student`, or `student` itself. The layers are trained with
            the network, and are no part of what is saved.

        Raises:
            ArgumentError: the two cannot be compared.
        """
        return student

    def project(
        self, students: Sequence[Tensor], teachers: Sequence[Tensor], pairs: Pairs, name: str
    ) -> Sequence[Tensor]:
        """What all of a student's features go through: by default each through its `projector`.

        Args:
            students, teachers: symbolic outputs of the layers of all pairs.
            pairs: of `pairs`.
            name: prefix for the names of layers.

        Raises:
            ArgumentError: two cannot be compared; it names their layers.
        """
        projected = []
        for number, (student, teacher, names) in enumerate(
            zip(students, teachers, pairs, strict=True), start=1
        ):
            try:
                projected.append(self.projector(student, teacher, f"{name}_{number}"))
            except ArgumentError as error:
                hint = f"The layers are {names[0]!r} and {names[1]!r}"
                raise ArgumentError(
                    error.argument, error.accepted, error.received, hint, error.owner, error.must
                ) from error
        return projected

    def check_classes(self, classes: int) -> None:
        """Raises an `ArgumentError` if an option does not suit this number of classes."""

    def check_embeddings(self, student: int, teacher: int) -> None:
        """Raises an `ArgumentError` if pooled features of so many channels cannot be compared."""

    def check_batch_size(self, batch_size: int) -> None:
        """Raises an `ArgumentError` if batches of this size teach nothing."""
        if self.relates_samples and batch_size < 2:
            accepted = f"at least 2 with {self.name}, which compares the samples of a batch"
            raise ArgumentError("batch_size", accepted, batch_size)

    @classmethod
    def compares_layers(cls) -> bool:
        """Whether it may ask for features of layers."""
        return cls.pairs is not Method.pairs

    @classmethod
    def adds_term(cls) -> bool:
        """Whether it adds a term, and does not only weigh the labels."""
        return cls.term is not Method.term


@dataclass(frozen=True)
class Correction(_Options):
    """A change to what methods on logits see: it combines with each of them.

    A subclass defines one or more of the functions below. Each is given the batch as it came, and
    what the corrections before it made of a value.

    Attributes:
        name: as for `Method`.
        kind: at most one correction of a kind can be used at a time.
        implied: options of a method that this correction needs: name -> value.
    """

    kind: ClassVar[str]
    implied: ClassVar[dict[str, object]] = {}

    def teacher_logits(self, batch: Batch, logits: Tensor) -> Tensor:
        """The teacher's logits, `(batch, classes)`."""
        return logits

    def student_logits(self, batch: Batch, logits: Tensor) -> Tensor:
        """The student's logits, `(batch, classes)`."""
        return logits

    def temperature(self, batch: Batch, temperature: Tensor | float) -> Tensor | float:
        """The temperature: a number, or one for each sample, `(batch,)`."""
        return temperature

    def check_method(self, method: "LogitsMethod") -> None:
        """Raises an `ArgumentError` if the correction cannot be one of this method's."""
        corrects = type(self).temperature is not Correction.temperature
        if corrects and not hasattr(method, "temperature"):
            accepted = f"without {self.name}: {method.name} has no temperature"
            method.refuse("corrections", accepted, self.name)
        for name, value in self.implied.items():
            received = getattr(method, name, value)
            if received != value:
                method.refuse(name, f"{value:g} with {self.name}", received)

    def check_classes(self, classes: int) -> None:
        """As of `Method`."""


@dataclass(frozen=True)
class LogitsMethod(Method):
    """A method whose term is a function of logits, and of a temperature if it has that option.

    Attributes:
        corrections: applied in this order to what it sees.
        softens: whether it softens the teacher by an option that is no temperature.
    """

    softens: ClassVar[bool] = False

    corrections: Sequence[Correction] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "corrections", tuple(self.corrections))
        by_kind = {}
        for correction in self.corrections:
            other = by_kind.setdefault(correction.kind, correction)
            if other is not correction:
                self.refuse(
                    "corrections",
                    f"one of a kind; {other.name} and {correction.name} are both of the kind "
                    f"{correction.kind}",
                    "+".join(each.name for each in self.corrections),
                )
        for correction in self.corrections:
            correction.check_method(self)

    def corrected(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | float]:
        """The logits of teacher and student, and the temperature, as the term sees them."""
        teacher, student = batch.teacher.logits, batch.student.logits
        temperature = getattr(self, "temperature", 1.0)
        for correction in self.corrections:
            teacher = correction.teacher_logits(batch, teacher)
            student = correction.student_logits(batch, student)
            temperature = correction.temperature(batch, temperature)
        return teacher, student, temperature

    def check_classes(self, classes: int) -> None:
        for correction in self.corrections:
            correction.check_classes(classes)


@dataclass(frozen=True)
class LayersMethod(Method, abc.ABC):
    """A method that sums a distance over pairs of layers, and multiplies it by a weight.

    A subclass has the options `weight` and `layers` and defines `distance`.
    """

    if TYPE_CHECKING:
        weight: float
        layers: Pairs | None

    def __post_init__(self):
        super().__post_init__()
        if self.layers is not None:  # lists too are accepted, and methods are hashed
            object.__setattr__(self, "layers", tuple(tuple(pair) for pair in self.layers))

    def pairs(self, network: Network, teacher: Network) -> Pairs:
        return self.default_pairs(network, teacher) if self.layers is None else self.layers

    def default_pairs(self, network: Network, teacher: Network) -> Pairs:
        """The pairs where `layers` is None: the stages that both networks have.

        Raises:
            ArgumentError: there are none.
        """
        students, teachers = _stage_sizes(network), _stage_sizes(teacher)
        found = tuple((stage, stage) for stage in students if stage in teachers)
        if any(students[stage] != teachers[stage] for stage, _ in found):
            # Networks of two families: the last stage of each size that both have.
            own, theirs = ({size: s for s, size in of.items()} for of in (students, teachers))
            found = tuple((own[size], theirs[size]) for size in own if size in theirs)
        if not found:
            self.refuse(
                "layers",
                "given where the networks have no layers stage1, stage2, ... in common, of the "
                "same height and width",
                None,
            )
        return found

    def check_same_places(self, student: Tensor, teacher: Tensor) -> None:
        """Raises an `ArgumentError` unless two outputs are images of the same height and width."""
        alike = student.shape[1:-1] == teacher.shape[1:-1]
        if not alike or len(student.shape) != 4:
            shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
            self.refuse("layers", "layers of the same height and width", shapes)

    @abc.abstractmethod
    def distance(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Distance of two features, float32 `(batch,)`."""

    def term(self, batch: Batch) -> Tensor:
        pairs = zip(batch.teacher.features, batch.student.features, strict=True)
        return self.weight * sum(self.distance(teacher, student) for teacher, student in pairs)


def _stage_sizes(network):
    """Name -> height and width of the layers stage1, stage2, ... that a network has."""
    names = {layer.name for layer in network.layers}
    stages = [f"stage{k}" for k in range(1, 9) if f"stage{k}" in names]
    return {stage: tuple(network.get_layer(stage).output.shape[1:-1]) for stage in stages}


class _LayerPairs:
    """Accepts pairs of layers' names, or None."""

    def __contains__(self, value):
        if value is None:
            return True
        if isinstance(value, str) or not isinstance(value, Sequence) or not value:
            return False
        return all(
            not isinstance(pair, str)
            and isinstance(pair, Sequence)
            and len(pair) == 2
            and all(isinstance(name, str) and name for name in pair)
            for pair in value
        )

    def __str__(self):
        return "pairs (student_layer, teacher_layer), at least one"


LAYER_PAIRS = _LayerPairs()
