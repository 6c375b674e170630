"""Training in generations: patriarch -> students -> ensembles (Yang et al., AAAI 2019)."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kdtoolkit._checks import Integers, check
from kdtoolkit._claim import described_data, design, held
from kdtoolkit._types import PathLike
from kdtoolkit.analysis.energy import sorted_confidences
from kdtoolkit.data.loading import Data
from kdtoolkit.edge.decisions import log_probabilities
from kdtoolkit.losses.strengths import ADAPTIVE, TOP_K_SHARE, usual_top_k
from kdtoolkit.methods import KD, Methods, as_methods, described
from kdtoolkit.training import evaluation, loop, progress
from kdtoolkit.training.compute import BY_KERAS, Compute
from kdtoolkit.training.finiteness import NonFiniteError
from kdtoolkit.training.patriarch import Patriarch
from kdtoolkit.training.schedules import SCHEDULES, Schedule
from kdtoolkit.training.student import Student
from kdtoolkit.training.transfer import Transfer

__all__ = ["METHODS", "Generation", "train_generations"]

METHODS = KD(0.6, 1.0)
"""Eqn 4 with lambda = 0.6; it has no temperature."""


@dataclass(frozen=True)
class Generation:
    """A finished generation.

    Attributes:
        network: the trained Keras model.
        results: its figures, as they stand in `results.json`.
    """

    network: keras.Model
    results: dict


_CONFIDENCES = 10  # of each image, whose means are told


def train_generations(
    build: Callable[[], keras.Model],
    data: Data,
    output_dir: PathLike,
    *,
    generations: int = 1,
    primary_score: float = 0.6,
    methods: Methods | Callable[[int], Methods] = METHODS,
    top_k: int | str | None = None,
    top_k_share: float = TOP_K_SHARE,
    patriarch: str = "tolerant",
    schedule: Schedule = SCHEDULES["cifar_resnet"],
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    strategy: tf.distribute.Strategy | None = None,
    compute: Compute = BY_KERAS,
    transfer: Transfer | None = None,
    show_progress: bool = True,
    claim: Callable[[], object] | None = None,
) -> list[Generation]:
    """Trains `D(primary_score, lambda)`: generation 0 on labels, each next one on the last.

    Every generation starts from what `build` returns, freshly drawn or trained weights. Called
    again with the same arguments after an interruption, it goes on where it stopped and ends with
    the same weights. `output_dir` gets a directory `generation_G` for each (`network.keras`,
    `results.json`) and TensorBoard `logs`.

    Args:
        build: returns a new network that returns logits; called once per generation, after Keras'
            random seed was set from (`seed`, generation).
        data: of `kdtoolkit.data.load`.
        output_dir: where everything is written.
        generations: number of students after the patriarch.
        primary_score, top_k, top_k_share, patriarch: of the `Patriarch`.
        methods: of each `Student`; Eqn 4's lambda is the weight of `KD`, whose temperature is 1
            there. A function is given the number of a generation, from 1, and returns its methods.
        schedule: learning rate, momentum and weight decay.
        epochs, batch_size: of each generation; the schedule's own by default.
        seed: of initialisation, data order, augmentation.
        strategy: of `kdtoolkit.training.strategy`; by default TensorFlow's current.
        compute: of `kdtoolkit.training.compute.choose`; by default as Keras is set.
        transfer: of every generation, where `build` returns networks with trained weights.
        show_progress: print progress and the time left to standard error.
        claim: called once all is checked, before anything is written, by a caller that holds
            `output_dir` itself; by default it is held here. Its file generations.json stores the
            arguments.

    Returns:
        The generations, patriarch first. Their results hold `generation`, `test_accuracy`,
        `test_loss`, `primary_score` (test), `sorted_confidences` (test, the first ten),
        `validation_accuracy`, `ensemble_test_accuracy` (mean
        of the probabilities of generations 0..g), `seconds`, `images_per_second`.

    Raises:
        ValueError: an argument is outside its range; `output_dir` belongs to other arguments,
            holds a damaged file, or is one that another process writes to.
        NonFiniteError: a loss or a variable was not finite; the message names the generation.
        WorkerLostError: another worker of the strategy ended.
    """
    check("generations", generations, Integers(0))
    chosen = [
        as_methods(methods(number) if callable(methods) else methods)
        for number in range(1, generations + 1)
    ]
    epochs, batch_size = schedule.length(epochs, batch_size)
    options: dict[str, Any] = {"weight_decay": schedule.weight_decay, "seed": seed}

    def first(network):
        return Patriarch(
            network, patriarch, primary_score, top_k, top_k_share=top_k_share, **options
        )

    if top_k is None:
        top_k = usual_top_k(data.info.classes)
    # What is wrong with an argument is said before it is written down as this directory's.
    loop.check_validation(data)
    build = loop.fresh(build)
    example = build()
    first(example)
    for own in dict.fromkeys(chosen):
        Student(example, example, own, **options)
    strategy = strategy or tf.distribute.get_strategy()
    output_dir = Path(output_dir)
    arguments = {
        "generations": generations,
        "primary_score": primary_score,
        "methods": [described(own) for own in chosen],
        "top_k": top_k,
        "patriarch": patriarch,
        "schedule": str(schedule),
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
        **described_data(data),
        "network": design(example),
        "transfer": None if transfer is None else str(transfer),
    }
    if top_k == ADAPTIVE:
        arguments["top_k_share"] = top_k_share
    bar = progress.shown((generations + 1) * epochs, strategy, show_progress)
    settings = loop.Settings(
        schedule=schedule,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        strategy=strategy,
        compute=compute,
        callbacks=[bar] if bar else [],
        transfer=transfer,
    )

    settings.check(data, [method for own in chosen for method in own])
    tested = functools.cache(functools.partial(_tested, data))
    with held(strategy, output_dir, "generations.json", arguments, claim):
        lineage: list[Generation] = []
        for generation in range(generations + 1):
            name, before = f"generation_{generation}", [member.network for member in lineage]
            training = loop.Training(
                output_dir / name, settings, generation, output_dir / "logs" / name, name
            )

            def make_trainer(generation=generation, before=before):
                if generation == 0:
                    return first(build())
                return Student(build(), before[-1], chosen[generation - 1], **options)

            def evaluate(network, generation=generation, before=before):
                everyone = [tested(member) for member in [*before, network]]
                validation = evaluation.figures(*evaluation.predict(network, data.validation))
                return {"generation": generation, **_figures(everyone, validation.accuracy)}

            def begin(generation=generation):
                if bar:
                    bar.begin(f"generation {generation}/{generations}", generation * epochs)

            try:
                finished = training.complete(build, make_trainer, data, evaluate, begin)
            except NonFiniteError as error:
                error.args = (f"Generation {generation}: {error}",)
                raise
            lineage.append(Generation(*finished))
        return lineage


def _tested(data, network):
    """Log-probabilities of a network for the test images, and their labels."""
    logits, labels = evaluation.predict(network, data.test)
    return log_probabilities(logits), labels


def _figures(tested, validation_accuracy):
    """Figures of the last of some networks, and on test images of their ensemble."""
    log_f, labels = tested[-1]
    own = evaluation.figures(log_f, labels)
    mean = np.mean([np.exp(each) for each, _ in tested], axis=0)
    ensemble = evaluation.figures(np.log(np.maximum(mean, np.finfo(np.float64).tiny)), labels)
    return {
        "test_accuracy": own.accuracy,
        "validation_accuracy": validation_accuracy,
        "test_loss": own.loss,
        "primary_score": own.primary_score,
        "sorted_confidences": sorted_confidences(log_f)[:_CONFIDENCES].tolist(),
        "ensemble_test_accuracy": ensemble.accuracy,
    }
