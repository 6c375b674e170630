"""One trained network, smaller in several ways, each exported and measured."""

import dataclasses
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit import export, models
from kdtoolkit._checks import ArgumentError, suiting
from kdtoolkit._claim import described_data, fingerprint, held
from kdtoolkit._types import PathLike
from kdtoolkit.compression import sensitivity_analysis, sensitivity_files
from kdtoolkit.compression.channel_graph import analyse, narrowed
from kdtoolkit.compression.channel_selection import Selection, channel_count
from kdtoolkit.compression.channels import shrunk
from kdtoolkit.compression.coupling import channel_groups
from kdtoolkit.compression.keep import KeepZeros
from kdtoolkit.compression.layers import choose, kernels
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.pruning import MagnitudePruning
from kdtoolkit.compression.quantization import quantization_aware
from kdtoolkit.compression.rounds import Rounds
from kdtoolkit.compression.schedules import PolynomialDecay
from kdtoolkit.compression.target import Target
from kdtoolkit.compression.variant_files import VariantFiles, validated
from kdtoolkit.data.loading import Data
from kdtoolkit.export import litert
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.file_cost import FileCost
from kdtoolkit.methods import Method, Methods, as_methods, described
from kdtoolkit.models.contract import check_logits
from kdtoolkit.models.copies import copier
from kdtoolkit.training import loop, progress
from kdtoolkit.training.compute import BY_KERAS, Compute
from kdtoolkit.training.distribution import from_chief, is_chief, local
from kdtoolkit.training.patriarch import Patriarch
from kdtoolkit.training.schedules import SCHEDULES, Schedule
from kdtoolkit.training.student import Student

_UPDATES = 50  # Of the masks, while the sparsity rises.
_QUANTIZED = "quantized"  # Directory of the training that rounds.
_MEASURED = 8  # Images that a network is measured with on its way to a target.


@dataclass(frozen=True)
class Compressed:
    """What came of compressing a network.

    Attributes:
        rows: a dict for each variant and its file, in the order in which they were made: `variant`,
            what it is called; `validation_accuracy`; `parameters`; `sparsity`, the share of zeros
            in kernels; `macs`; `path` of the file, below the output directory; `format`,
            `quantization`, `bytes`, `gzipped_bytes`; of the file on test images, `test_accuracy`,
            `max_difference`, `mean_difference`, `agreement`, `milliseconds_per_image`, and `check`,
            `"passed"` or `"FAILED"`, with the `failure` in words: such a file is not kept; of a
            mixed file `mixed`, what rounding does to each operation, and which stay in float;
            `directory` of the variant's own training, or None; `seconds` that this took. On workers
            that do not write, none.
        networks: variant -> its network; that of `"..., qat"` rounds as its file rounds.
        network: the pruned network, as it was fine-tuned; the original where nothing is pruned.
        rounds: for each round towards a target a dict: `whole`, what the network before it cost,
            `most`, what it was to come down to, `found`, what was left cost before it was
            fine-tuned, and `measured`, how many networks were measured to find that out.
    """

    rows: list[dict]
    networks: dict[str, keras.Model]
    network: keras.Model
    rounds: list[dict]


def compress(
    network: keras.Model | Callable[[], keras.Model],
    data: Data,
    output_dir: PathLike,
    *,
    structure: str = "weights",
    sparsity: float | None = None,
    layers: str | Sequence[str] | None = None,
    threshold: str = "layer",
    importance: str = "l1",
    target: str | None = None,
    limit: float = 1.0,
    rounds: int = 1,
    rankings: int = 1,
    quantize: Sequence[str] = ("int8",),
    max_accuracy_drop: float = 0.01,
    calibration_images: int = 256,
    with_original: bool = True,
    sensitivity: bool = False,
    methods: Methods = "kd",
    schedule: Schedule = SCHEDULES["fine_tuning"],
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    strategy: tf.distribute.Strategy | None = None,
    compute: Compute = BY_KERAS,
    about: export.About | None = None,
    show_progress: bool = True,
    claim: Callable[[], object] | None = None,
) -> Compressed:
    """Prunes a trained network, fine-tunes and quantises it, and measures a file of each variant.

    Called again with the same arguments after an interruption, it goes on where it stopped and ends
    with the same weights. `output_dir` gets directories `pruned` and `quantized` for what is
    trained (`network.keras`, `results.json`), before them `round_1` and so on where there are
    several rounds, `export` with the files, and TensorBoard `logs`; where channels go
    `channels.json`, which of them; and what `sensitivity` asks for.

    Args:
        network: functional Keras model that returns logits of normalised images, as those of this
            package; it is not changed. Or a function that returns it, a new copy with its weights
            each time it is called.
        data: of `kdtoolkit.data.load`.
        output_dir: where everything is written.
        structure: what is pruned: `"weights"`, `"channels"`, `"2:4"` (two of four consecutive input
            channels of a kernel) or `"none"`. Only channels make a network smaller and faster by
            themselves.
        sparsity: share of it to prune, in [0, 1); by default 0.8 of the weights, half of the
            channels, and always half for `"2:4"`.
        layers: pattern, or several, of the names of the layers to prune; by default all that can
            lose channels; for weights those of `MagnitudePruning`.
        threshold: `"layer"`, weights or channels are compared within each layer, or group of layers
            whose channels are tied; or `"global"`, over all.
        importance: what a channel is worth: see `select_channels`; `"taylor"` looks at the
            calibration images.
        target: instead of a sparsity of channels, such as `"macs=0.5"`, `"bytes=200k"` or
            `"ms=3.5ms"`: see `select_channels`. Bytes and milliseconds are those of the file of the
            first kind in `quantize`, else of float32.
        limit: largest share of such a group that is removed in a round, in (0, 1].
        rounds: in how many rounds channels go, each followed by `epochs` of fine-tuning.
        rankings: how often channels are ranked in a round: see `select_channels`.
        quantize: kinds of files besides that of float32: `"float16"`, `"dynamic_range"`, `"int4"`
            (an extra), `"int8"`, `"uint8"`, `"mixed"`, int8 but for what it spoils (see
            `export.to_mixed`), and `"qat"`, int8 after training that knows of it.
        max_accuracy_drop: share of the validation images that a mixed file may lose against the
            file in float32; these images choose what stays in float.
        calibration_images: number of training images, from all over them, that give integers
            their ranges, and `"taylor"` its gradients.
        with_original: also write and measure files of the network as it was given, to compare with;
            False where that was done before.
        sensitivity: first find out, on the validation images, what pruning each group of channels
            alone costs, and rounding each layer alone: see `kdtoolkit.compression.sensitivity`.
            `sensitivity.json` holds it, and `sensitivity.svg` shows it.
        methods: with which the original teaches while its like is fine-tuned; `()` for labels
            alone.
        schedule: learning rate, momentum and weight decay; training for `"qat"` begins at a
            hundredth of that learning rate.
        epochs, batch_size: of each fine-tuning; the schedule's own by default.
        seed: of data order and augmentation.
        strategy: of `kdtoolkit.training.strategy`; by default TensorFlow's current.
        compute: of `kdtoolkit.training.compute.choose`; by default as Keras is set.
        about: name, author and licence, for the files' metadata.
        show_progress: print progress and the time left to standard error.
        claim: called once all is checked, before anything is written, by a caller that holds
            `output_dir` itself; by default it is held here. Its file compression.json stores the
            arguments.

    Returns:
        A `Compressed`.

    Raises:
        ArgumentError: an argument is not what is accepted, or the network cannot be pruned,
            quantised or exported as it says.
        ValueError: the network does not fit the data; `output_dir` belongs to other arguments,
            holds a damaged file, or is one that another process writes to.
        ParityError: a file of float32 does not compute what its network computes.
        NonFiniteError: a loss or a variable was not finite.
        WorkerLostError: another worker of the strategy ended.
    """
    options = Options(
        *(structure, sparsity, layers, threshold, importance, target, limit, rounds),
        *(rankings, quantize, max_accuracy_drop, calibration_images),
    )
    methods = as_methods(methods)
    epochs, batch_size = schedule.length(epochs, batch_size)
    strategy = strategy or tf.distribute.get_strategy()
    fine_tunings = options.rounds * options.prunes + ("qat" in options.kinds)
    bar = progress.shown(fine_tunings * epochs, strategy, show_progress)
    settings = loop.Settings(
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        strategy=strategy,
        compute=compute,
        callbacks=[bar] if bar else [],
    )
    # What is wrong with an argument is said before it is written down as this directory's.
    if options.masks and compute.steps_per_execution != 1:
        accepted = "of one step an execution: weights are masked between the steps"
        raise ArgumentError("compute", accepted, compute)
    copy = copier(network)
    pixels, labels = data.train.spread(calibration_images)
    settings.check(data, methods)
    with compute.policy():
        original = copy()
        check_logits(original)
        loop.check_validation(data)
        loop.check_fits(original, data)
        steps = epochs * data.train.steps_per_epoch(batch_size)
        if options.masks and steps < 2:
            raise ArgumentError("epochs", "enough for two steps: one prunes, one recovers", epochs)
        examples = data.preprocessing(pixels)
    arguments = {
        **dataclasses.asdict(options),
        "layers": None if options.layers is None else list(options.layers),
        "quantize": list(quantize),
        "methods": described(methods),
        "network": fingerprint(original),
        "schedule": str(schedule),
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        **described_data(data),
        "about": about and dataclasses.asdict(about),
    }
    output_dir = Path(output_dir)
    run = _Run(
        *(original, copy, data, output_dir, options, methods, settings, bar, examples),
        rounds=Rounds(
            *(options, examples, labels),
            measure=_file_cost(options, data, about, pixels, examples),
            path=output_dir / "channels.json",
            identity=arguments,
        ),
        files=VariantFiles(output_dir, data, options, about, pixels, show_progress),
    )
    run.check(sensitivity)
    with held(strategy, output_dir, "compression.json", arguments, claim):
        if sensitivity:
            run.write_sensitivity(show_progress)
        return run.complete(with_original)


@dataclass(frozen=True)
class _Run:
    """The parts of a `compress` whose arguments are checked one by one.

    Attributes:
        original: the network as it was given.
        copy: makes another one.
        data, output_dir, options, methods: of `compress`.
        settings: of each fine-tuning.
        bar: progress of all of them, or None.
        examples: the calibration images, normalised.
        rounds: which channels go.
        files: of each variant.
    """

    original: keras.Model
    copy: Callable[[], keras.Model]
    data: Data
    output_dir: Path
    options: Options
    methods: Sequence[Method]
    settings: loop.Settings
    bar: progress.Progress | None
    examples: np.ndarray
    rounds: Rounds
    files: VariantFiles

    def check(self, sensitivity: bool) -> None:
        """Raises an `ArgumentError` about what the network cannot be asked for."""
        options, original = self.options, self.original
        with self.settings.compute.policy():
            _check_export(options, original, self.data.preprocessing)
            _check_pruning(options, original)
            if sensitivity:
                with suiting("sensitivity", sensitivity):
                    _ = self._groups  # which says what is wrong
            blamed = "target" if options.target else "structure"
            with suiting(blamed, getattr(options, blamed)):
                example = self.start_of_round(self._graph, self.channels(self._graph, 0, False))
                callbacks = self.pruning_callbacks()
            if options.prunes:
                trainer = self.trainer(example)
                with suiting("structure", options.structure):
                    for callback in callbacks:
                        callback.set_model(trainer)
        if "qat" in options.kinds:
            with suiting("quantize", options.quantize):
                rounded = quantization_aware(example, self.examples)
            self.trainer(rounded)

    def write_sensitivity(self, show_progress: bool) -> None:
        """Finds out what each part of the network costs alone, once."""
        if not is_chief(self.settings.strategy) or sensitivity_files.written(self.output_dir):
            return
        if show_progress:
            print("Pruning and rounding each part of the network alone", file=sys.stderr)
        found = sensitivity_analysis.sensitivity(
            self.original,
            self._groups,
            lambda network: validated(network, self.data).accuracy,
            importance=self.rounds.importance,
        )
        sensitivity_files.write(found, self.output_dir)

    def complete(self, with_original: bool) -> Compressed:
        """Makes every variant and its file."""
        options = self.options
        table: list[dict] = []
        networks: dict[str, keras.Model] = {}
        reached: list[dict] = []

        def measure(variant, network, kind, directory=None, seconds=0.0):
            networks[variant] = network
            if is_chief(self.settings.strategy):
                row = self.files.row(variant, network, kind)
                table.append(
                    {"variant": variant, **row, "directory": directory, "seconds": seconds}
                )

        name, network, directory, seconds = "original", self.original, None, 0.0
        if with_original:
            measure(name, network, "float32")
            if options.prunes and "int8" in options.kinds:  # what rounding alone costs
                measure(f"{name}, int8", network, "int8")
        if options.prunes:
            name, graph = options.pruned_name, self._graph
            for number in range(1, options.rounds + 1):
                channels = self.channels(graph, number)
                if channels is not None and options.target:
                    reached.append(_reached(channels))
                directory = "pruned" if number == options.rounds else f"round_{number}"
                network, own_seconds = self.fine_tune_pruned(graph, channels, directory, number)
                seconds += own_seconds
                if channels is not None:
                    smaller = shrunk(graph, channels.keep)
                    graph = narrowed(smaller, network, smaller.alive)
            measure(name, network, "float32", directory, seconds)
        for kind in options.kinds:
            if kind == "qat":
                rounding, own_seconds = self.fine_tune_quantized(network)
                measure(f"{name}, qat", rounding, kind, _QUANTIZED, own_seconds)
            else:
                measure(f"{name}, {kind}", network, kind, directory, seconds)
        return Compressed(table, networks, network, reached)

    @functools.cached_property
    def _groups(self):
        return channel_groups(self.original)

    @functools.cached_property
    def _graph(self):
        """What depends on each other in the original; None where no channels go."""
        return analyse(self.original) if self.options.structure == "channels" else None

    def channels(self, graph, number, write=True):
        """The channels that stay in a round, as `Rounds.select`; None where none go."""
        if graph is None:
            return None

        def selected():
            found = self.rounds.select(narrowed(graph, local(graph.network), graph.alive), number)
            if write:
                self.rounds.write()
            return dataclasses.asdict(found)

        # Workers agree, whatever their last bits, and their milliseconds, are.
        with self.settings.compute.policy():
            return Selection(**from_chief(self.settings.strategy, selected))

    def start_of_round(self, graph, channels):
        """The network of a round, before it is fine-tuned."""
        return self.copy() if channels is None else shrunk(graph, channels.keep).network

    def pruning_callbacks(self):
        """The callbacks that prune while a network is fine-tuned."""
        if not self.options.masks:
            return []
        settings = self.settings
        steps = settings.epochs * self.data.train.steps_per_epoch(settings.batch_size)
        last = max(steps // 2, 2)  # the second half recovers
        often = max(last // _UPDATES, 1)
        schedule = PolynomialDecay(0.0, self.options.sparsity, 1, last, frequency=often)
        return [
            MagnitudePruning(
                schedule,
                layers=self.options.layers,
                threshold=self.options.threshold,
                structure="2:4" if self.options.structure == "2:4" else None,
            )
        ]

    def fine_tune_pruned(self, graph, channels, directory, number):
        """Fine-tunes what a round leaves; returns the network, and seconds."""
        return self._fine_tune(
            directory,
            functools.partial(self.start_of_round, graph, channels),
            self.pruning_callbacks(),
            self.settings.schedule,
            (number - 1) * self.settings.epochs,
        )

    def fine_tune_quantized(self, network):
        """Fine-tunes a network whose arithmetic is rounded; returns it, and seconds."""
        # The rate of the last epochs before. Normalisation is folded into kernels here: at ten
        # times this rate a ResNet-20 trained for long loses all that it knows in an epoch.
        schedule = self.settings.schedule
        slow = dataclasses.replace(schedule, learning_rate=schedule.learning_rate / 100)
        return self._fine_tune(
            _QUANTIZED,
            lambda: quantization_aware(network, self.examples),
            [KeepZeros(network)] if self.options.masks else [],
            slow,
            self.options.rounds * self.options.prunes * self.settings.epochs,
        )

    def trainer(self, network):
        """What fine-tunes a network: a student of the original, or labels alone."""
        settings = self.settings
        own = {"weight_decay": settings.schedule.weight_decay, "seed": settings.seed}
        if not self.methods:
            return Patriarch(network, "plain", **own)
        return Student(network, self.original, self.methods, **own)

    def _fine_tune(self, directory, build, callbacks, schedule, done):
        settings = dataclasses.replace(
            self.settings, schedule=schedule, callbacks=[*callbacks, *self.settings.callbacks]
        )
        training = loop.Training(
            self.output_dir / directory,
            settings,
            log_dir=self.output_dir / "logs" / directory,
            name=directory,
        )
        network, results = training.complete(
            build,
            lambda: self.trainer(build()),
            self.data,
            lambda network: {"variant": directory},
            lambda: self.bar and self.bar.begin(directory, done),
        )
        return network, results["seconds"]


def _file_cost(options, data, about, pixels, examples):
    """What a network costs as the file that the target is about; None for other targets."""
    cost = None if options.target is None else Target.parse(options.target).cost
    if cost not in ("bytes", "ms"):
        return None
    kind, prepare = options.target_kind, None
    if kind == "qat":
        kind, prepare = "int8", lambda network: quantization_aware(network, examples[:_MEASURED])
    file = FileCost(
        *(data.preprocessing, kind, pixels[:_MEASURED], prepare), data.info.labels, about
    )
    return file.of(cost)


def _reached(selection):
    """What came of a round towards a target, as JSON holds it."""
    found = dataclasses.asdict(selection)
    return {name: found[name] for name in ("whole", "most", "found", "measured")}


def _check_pruning(options, network):
    """Raises an `ArgumentError` that says whether it is the layers that cannot be pruned."""
    if not options.prunes:
        return
    with suiting("structure", options.structure):
        if options.masks:
            kernels(network)
        else:
            channel_groups(network)
    with suiting("layers", options.layers):
        if options.masks:
            choose(network, options.layers)
        else:
            channel_count(network, options.layers or "*")


def _check_export(options, network, preprocessing):
    """Raises an `ArgumentError` if the network cannot be measured or written."""
    with suiting("network", network.name):
        models.macs(network)
        try:
            function = trace(network, preprocessing, batch=1)
        except Exception as error:  # TensorFlow's own: a name that is no name of an operation
            raise ValueError(f"the network cannot be exported: {error}") from error
    if options.calibrates:
        with suiting("quantize", options.quantize):
            litert.check_calibration(function)
