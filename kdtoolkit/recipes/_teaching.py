"""From the flags of the distill recipe to networks and trainers."""

import dataclasses

from kdtoolkit import models, training
from kdtoolkit.data.augmentation import Views
from kdtoolkit.models import saved
from kdtoolkit.recipes import _outputs
from kdtoolkit.recipes._command import blaming
from kdtoolkit.training import distribution, evaluation, layer_pairs, teacher_cache


class Teaching:
    """What the flags of a run ask for, on its data.

    Args:
        flags, data: of the run.
        path: of the teacher's file, None for one that is trained.

    Attributes:
        data: what networks are trained on that have no teacher.
        taught: what students are trained on; with the teacher's outputs after `cache`.
    """

    def __init__(self, flags, data, path):
        self.flags, self.data, self.taught = flags, data, data
        self._path = path
        self._shape, self._classes = data.info.image_shape, data.info.classes
        self._options = {"weight_decay": flags.weight_decay}

    def example_teacher(self):
        """The teacher from its file, or an untrained one of its kind."""
        if self._path is None:
            return self.build_teacher()
        with blaming("teacher"):
            network = saved.load_classifier(self._path, self._shape, self._classes)
            pixels = _outputs.input_range(network, self.data, self.flags, "teacher_input")
            return saved.from_input_range(network, self.data.preprocessing, pixels)

    def build_teacher(self):
        return self._network(self.flags.teacher)

    def teacher_trainer(self):
        network = self.build_teacher()
        return training.Patriarch(network, "plain", seed=self.flags.teacher_seed, **self._options)

    def build(self, way):
        """A student as a `Way` trains it."""
        network = self._network(self.flags.student)
        # The paper's width: these heads only teach, and what they would cost is cut off.
        return models.add_exits(network, mid=128) if way.has_exits else network

    def trainer(self, way, teacher, seed):
        """The trainer of a new student."""
        network, options = self.build(way), {**self._options, "seed": seed}
        if way.trainer == "plain":
            return training.Patriarch(network, "plain", **options)
        if way.trainer == "mutual":
            peer = self._network(self.flags.peer)
            return training.MutualLearning([network, peer], **options)
        if way.has_exits:
            return training.SelfDistillation(network, way.methods, **options)
        return training.Student(network, teacher, way.methods, **options)

    def cache(self, teacher, ways, directory, strategy):
        """Computes what the teacher says of fixed views, in which all methods then see images.

        Each worker reads whole batches: those that do not see the chief's disk have files of their
        own.
        """
        views = Views(self.flags.views, self.flags.teacher_seed, generation=1)
        train, student = self.data.train, self._network(self.flags.student)
        layers = [
            layer
            for way in ways
            if way.needs_teacher
            for layer in layer_pairs.attach(way.methods, student, teacher).teacher_layers
        ]

        def build():
            return teacher_cache.build(teacher, train, directory, views=views, layers=layers)

        with blaming("cache_teacher"):
            cache = distribution.chief_first(strategy, build)
        self.taught = dataclasses.replace(self.data, train=cache.attach(train))
        self.data = dataclasses.replace(self.data, train=train.in_views(views))

    def classifier(self, network):
        """The network with one output: the deepest of a multi-exit network."""
        if isinstance(network.output, dict):
            return models.cut(network, models.exit_names(network)[-1])
        return network

    def figures(self, network):
        """The figures of a student, or of the teacher, on the test and validation images."""
        network = self.classifier(network)
        test = evaluation.predict(network, self.data.test)
        return evaluation.exit_figures(*test, *evaluation.predict(network, self.data.validation))[
            "network"
        ]

    def _network(self, name):
        return models.build(name, self._shape, self._classes)
