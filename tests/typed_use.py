"""The public API in use, for `test_types.py`: a type checker reads this file and nobody runs it."""

from pathlib import Path
from typing import assert_type

import keras
import numpy as np

import kdtoolkit
from kdtoolkit import data, front, generations, methods, models, training
from kdtoolkit.compression import (
    ConstantSparsity,
    MagnitudePruning,
    Sensitivity,
    Sparsity,
    channel_groups,
    prune_channels,
    quantization_aware,
    sensitivity,
    sparsity,
)
from kdtoolkit.data import Data, Split, StreamingSplit
from kdtoolkit.edge import EarlyExitClassifier, Prediction
from kdtoolkit.export import Exported, Parity, check, to_litert
from kdtoolkit.generations import Generation
from kdtoolkit.losses import TolerantCrossentropy, distillation_divergence, eta_from_primary_score
from kdtoolkit.report import plot_accuracy_against_cost


def train(directory: Path) -> list[Generation]:
    digits = data.load("digits", validation_fraction=0.2)
    assert_type(digits, Data)
    assert_type(digits.train, Split | StreamingSplit)
    assert_type(digits.info.classes, int | None)

    def build() -> keras.Model:
        return models.build("resnet8", (8, 8, 1), 10)

    lineage = generations.train_generations(
        build, digits, directory, methods=methods.KD(0.6, 1.0), epochs=1
    )
    assert_type(lineage[0].results, dict)
    by_number = generations.train_generations(
        build, digits, str(directory), methods=lambda number: "kd" if number > 1 else methods.DKD()
    )
    return [*lineage, *by_number]


def teach(teacher: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    student = training.Student(models.build("resnet8", [8, 8, 1], 10), teacher, "kd+attention")
    student.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
    data.register("own", lambda: data.Arrays(images, labels, class_names=["a", "b"]))
    student.fit(images, labels, callbacks=[MagnitudePruning(ConstantSparsity(0.5, 0))])
    assert_type(methods.parse("kd"), tuple[methods.Method, ...])
    assert_type(eta_from_primary_score(0.6), float)
    distillation_divergence(images, images, temperature=4.0)
    TolerantCrossentropy(primary_score=0.7)
    exits = models.add_exits(student.network, at=["stage1", "stage2"])
    training.SelfDistillation(exits, {"exit_1": methods.KD(), "exit_2": "embedding"})
    assert_type(models.exit_costs(exits), dict[str, float])


@methods.register
class Sure(methods.LogitsMethod):
    """A method of one's own."""

    def label_weight(self, batch: methods.Batch) -> float:
        return 0.5


def deploy(network: keras.Model, images: np.ndarray, directory: Path) -> Prediction:
    alone = sensitivity(network, channel_groups(network), lambda changed: 0.5)
    assert_type(alone, Sensitivity)
    small = prune_channels(network, 0.5, limit=alone.limits(0.02))
    assert_type(sparsity(small), Sparsity)
    prune_channels(network, target="ms=3.5ms", measure=lambda smaller: 0.1, limit=0.8)
    preprocessing = data.Preprocessing((8, 8, 1), (0.5,), (0.2,))
    exported = to_litert(
        quantization_aware(small, images), directory / "a.tflite", preprocessing, "int8"
    )
    assert_type(exported, Exported)
    assert_type(check(exported, small, preprocessing, images), Parity)
    plot_accuracy_against_cost({"exits": [(0.5, 0.9), (1.0, 0.95)]}, directory / "curve.png")
    classifier = EarlyExitClassifier(exported.path)
    assert_type(classifier.predict([images[0], images[1]]), list[Prediction])
    (prediction,) = classifier.predict([images[0]])
    return prediction


def shrink(network: keras.Model, directory: Path) -> Path:
    digits = data.load("digits")
    found = front.search(network, digits, directory, objective="bytes", students=["resnet8"])
    assert_type(found, front.Front)
    assert_type(found.path, Path)
    return found.path


def mistakes() -> None:
    """Each is found, or `warn_unused_ignores` says that it is not."""
    kdtoolkit.losess  # type: ignore[attr-defined]  # noqa: B018
    models.build("resnet8", (8, 8, 1))  # type: ignore[call-arg]
    data.load("digits", validation_fractoin=0.1)  # type: ignore[call-arg]
    methods.KD(weight="high")  # type: ignore[arg-type]
    training.Studnet  # type: ignore[attr-defined]  # noqa: B018
