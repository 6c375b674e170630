"""From the flags of the distill recipe to networks and trainers."""

import dataclasses

from kdtoolkit import models, training
from kdtoolkit.data.augmentation import Views
from kdtoolkit.models import saved
from kdtoolkit.recipes import _methods, _outputs, _supervision
from kdtoolkit.recipes._command import blaming
from kdtoolkit.training import distribution, evaluation, teacher_cache


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

    def build(self, method):
        """A student as the method trains it."""
        network = self._network(self.flags.student)
        # The paper's width: these heads only teach, and what they would cost is cut off.
        return models.add_exits(network, mid=128) if method.has_exits else network

    def trainer(self, method, teacher, seed):
        """The method's trainer of a new student."""
        flags, network = self.flags, self.build(method)
        options = {**self._options, "seed": seed}
        if method.trainer == "plain":
            return training.Patriarch(network, "plain", **options)
        if method.trainer == "mutual":
            return training.MutualLearning([network, self._network(flags.peer)], **options)
        if method.trainer == "deep_supervision":
            return training.SelfDistillation(network, 0, 0, **options)
        names = {
            "adjustment": method.adjustment,
            "dynamic_temperature": method.dynamic_temperature,
        }
        options |= _supervision.options(flags, **names)
        options["temperature"] = _methods.temperature(flags, method)
        if method.trainer == "self_distillation":
            return training.SelfDistillation(network, **options)
        weight = flags.teacher_weight if method.by_logits else 0.0
        if method.features is None:
            return training.Student(network, teacher, weight, **options)
        with blaming(_methods.LAYERS[method.features]):
            matching = self._matching(method.features, teacher)
            return training.Student(network, teacher, weight, features=matching, **options)

    def cache(self, teacher, methods, directory, strategy):
        """Computes what the teacher says of fixed views, in which all methods then see images.

        Each worker reads whole batches: those that do not see the chief's disk have files of their
        own.
        """
        views = Views(self.flags.views, self.flags.teacher_seed, generation=1)
        kinds = {method.features for method in methods if method.features}
        pairs = [pair for kind in sorted(kinds) for pair in self._pairs(kind, teacher)]
        train = self.data.train
        layers = [layer for _, layer in pairs]

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

    def _matching(self, kind, teacher):
        weight = self.flags[_methods.WEIGHTS[kind]].value
        return training.FeatureMatching(self._pairs(kind, teacher), kind, weight)

    def _pairs(self, kind, teacher):
        """Layers of student and teacher; by default the stages that both have."""
        pairs = _methods.layer_pairs(self.flags, kind)
        if pairs is not None:
            return pairs
        networks = (self._network(self.flags.student), teacher)
        names = [{layer.name for layer in network.layers} for network in networks]
        stages = [f"stage{k}" for k in range(1, 9)]
        return [(stage, stage) for stage in stages if all(stage in own for own in names)]
