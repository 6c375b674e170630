"""From the flags of the compress recipe to networks, trainers, and rows of figures."""

import math

from kdtoolkit import compression, export, models, training
from kdtoolkit.export import litert
from kdtoolkit.export.classifier import trace
from kdtoolkit.export.rows import file_facts, parity_facts
from kdtoolkit.models import saved
from kdtoolkit.recipes import _outputs, _run
from kdtoolkit.recipes._command import UsageError, blaming, blaming_arguments
from kdtoolkit.training import distribution, evaluation

_UPDATES = 50  # of the masks, while the sparsity rises
_CALIBRATED = ("int8", "uint8")  # kinds of files whose ranges images give


class Compression:
    """What the flags of a run ask for, on its data.

    Args:
        flags, data: of the run.
        path: of the network's file.
        methods: with which the original teaches; none for labels alone.

    Attributes:
        original: the network as it was loaded; the teacher.
    """

    def __init__(self, flags, path, data, methods):
        self.flags, self._path, self._data, self._methods = flags, path, data, methods
        try:
            original = self._load()
        except ValueError as error:
            raise UsageError(
                f"--{'exit' if '`exit`' in str(error) else 'model'}: {error}"
            ) from error
        self._input_range = _outputs.input_range(original, data, flags, "model_input")
        self.original = self._adapted(original)
        pixels, _ = data.train.pixels(flags.calibration_images)
        self._calibration, self._examples = pixels, data.preprocessing(pixels)

    def _load(self):
        info = self._data.info
        network = saved.load_classifier(self._path, info.image_shape, info.classes, self.flags.exit)
        network.trainable = True  # whatever was frozen when it was trained
        return network

    def _adapted(self, network):
        return saved.from_input_range(network, self._data.preprocessing, self._input_range)

    def _copy(self):
        return self._adapted(self._load())

    def check_export(self):
        """Raises a `UsageError` if the network cannot be measured or written."""
        with blaming("model"):
            try:
                models.macs(self.original)
                function = trace(self.original, self._data.preprocessing, batch=1)
            except Exception as error:  # TensorFlow's own: a name that is no name of an operation
                raise ValueError(f"the network cannot be exported: {error}") from error
        if any(kind in _CALIBRATED for kind in self.flags.quantize):
            with blaming("quantize"):
                litert.check_calibration(function)

    def pruned(self):
        """A copy of the network as it is fine-tuned: with fewer channels, or to be masked."""
        if self.flags.structure == "channels":
            layers = {"layers": self.flags.layers} if self.flags.layers else {}
            return compression.prune_channels(self._copy(), self.flags.sparsity, **layers)
        return self._copy()

    def pruning(self, example):
        """The callbacks that prune `example`'s like while it is fine-tuned."""
        flags = self.flags
        if flags.structure not in ("weights", "2:4"):
            return []
        steps = flags.epochs * self._data.train.steps_per_epoch(flags.batch_size)
        flags.require("epochs", steps > 1, "enough for two steps: one prunes, one recovers")
        last = max(steps // 2, 2)  # the second half recovers
        schedule = compression.PolynomialDecay(
            0.0, flags.sparsity, 1, last, frequency=max(last // _UPDATES, 1)
        )
        structure = "2:4" if flags.structure == "2:4" else None
        callback = compression.MagnitudePruning(
            schedule, layers=flags.layers, threshold=flags.threshold, structure=structure
        )
        callback.set_model(self.trainer(example))  # says whether its layers can be pruned
        return [callback]

    def quantization_aware(self, network):
        return compression.quantization_aware(network, self._examples)

    def keep_zeros(self, network):
        """The callbacks that keep a pruned network's zeros while its like is trained."""
        if self.flags.structure not in ("weights", "2:4"):
            return []
        return [compression.KeepZeros(network)]

    def trainer(self, network):
        """Fine-tunes a network: with the uncompressed one as its teacher, or on labels alone."""
        options = {"weight_decay": self.flags.weight_decay, "seed": self.flags.seed}
        if not self._methods:
            return training.Patriarch(network, "plain", **options)
        with blaming_arguments():
            return training.Student(network, self.original, self._methods, **options)

    def measure(self, variant, network, kind, output_dir, directory=None, seconds=0.0):
        """Exports a network and runs the file on the test images.

        Args:
            variant: what it is called in the report.
            network: Keras model.
            kind: one of the recipe's kinds of files.
            output_dir: of the run.
            directory: where the network's own training is, below `output_dir`, or None.
            seconds: that this training took.

        Returns:
            A row of `results.json`.

        Raises:
            RunError: a file of float32 does not compute what the network computes.
        """
        network = distribution.local(network)
        (output_dir / "export").mkdir(exist_ok=True)
        quantization = "int8" if kind == "qat" else kind
        images, labels = self._data.test.pixels(_run.EXPORT_IMAGES)
        name = variant.replace(", ", "-").replace(" ", "-").replace("%", "").replace(":", "-")
        path = output_dir / "export" / f"{name}.tflite"
        _run.say_exporting(path, output_dir)
        exported = export.to_litert(
            network,
            path,
            self._data.preprocessing,
            quantization,
            self._calibration if kind in _CALIBRATED else None,
        )
        parity = export.measure(exported, network, self._data.preprocessing, images, labels)
        if parity.failure:
            _run.discard(path, quantization, f"{path} ({quantization}) {parity.failure}")
        validation = evaluation.figures(*evaluation.predict(network, self._data.validation))
        return {
            "variant": variant,
            "validation_accuracy": validation.accuracy,
            "parameters": sum(math.prod(v.shape) for v in network.trainable_variables),
            "sparsity": compression.sparsity(network).total,
            "macs": models.macs(network),
            **file_facts(exported, output_dir),
            **parity_facts(parity),
            "directory": directory,
            "seconds": seconds,
        }
