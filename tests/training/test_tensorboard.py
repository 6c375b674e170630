"""What a training leaves for TensorBoard."""

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from kdtoolkit import data, models
from kdtoolkit.methods import KD, Embedding, Focal
from kdtoolkit.training import (
    Patriarch,
    Schedule,
    SelfDistillation,
    Settings,
    Student,
    Training,
    Transfer,
)
from kdtoolkit.training.tensorboard import TensorBoard


def figures(directory):
    """Tag -> values, one an epoch."""
    events = EventAccumulator(str(directory))
    events.Reload()
    tags = events.Tags()["tensors"]
    return {
        tag: [float(np.frombuffer(e.tensor_proto.tensor_content, "f4")[0]) for e in found]
        for tag, found in ((tag, events.Tensors(tag)) for tag in tags)
    }


def test_training_and_validation_are_lines_of_one_chart(tmp_path):
    """The tags of Keras' own callback, in the directories that it writes to."""
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    network.compile("sgd", "mse", metrics=["mae"])
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.zeros((8, 2))
    own = TensorBoard(tmp_path / "own", {"rate": 0.01})
    keras_own = keras.callbacks.TensorBoard(tmp_path / "keras")
    logs = network.fit(
        *(x, y), epochs=2, validation_data=(x, y + 1), callbacks=[own, keras_own], verbose=0
    ).history
    train, validation = (figures(tmp_path / "own" / name) for name in ("train", "validation"))
    np.testing.assert_allclose(train["epoch_loss"], logs["loss"], rtol=1e-6)
    np.testing.assert_allclose(validation["epoch_loss"], logs["val_loss"], rtol=1e-6)
    np.testing.assert_allclose(train.pop("epoch_learning_rate"), [0.01, 0.01], rtol=1e-6)
    assert set(train) == set(validation) == {"epoch_loss", "epoch_mae"}
    theirs = figures(tmp_path / "keras" / "validation")
    assert set(validation) <= set(theirs)
    np.testing.assert_array_equal(validation["epoch_mae"], theirs["epoch_mae"])


def rows(directory):
    """Name -> `(hyper-parameters, figures, sessions)` of each row of the HParams tab."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(directory))
    context = Context(TBContext(data_provider=provider))
    statuses = api_pb2.Status.values()
    request = api_pb2.ListSessionGroupsRequest(allowed_statuses=statuses, slice_size=100)
    found = Handler(RequestContext(), context, "", request).run()
    return {
        group.name: (
            {name: getattr(v, v.WhichOneof("kind")) for name, v in group.hparams.items()},
            {f"{m.name.group}/{m.name.tag}": m.value for m in group.metric_values},
            len(group.sessions),
        )
        for group in found.session_groups
    }


class Stop(keras.callbacks.Callback):
    """What a kill in the last epoch does."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_each_training_is_one_row_of_its_hyperparameters(tmp_path):
    """With its last figures; one that was interrupted too."""
    digits = data.load("digits", train_examples=40)
    schedule = Schedule(4, 32, 0.05, drops=(2, 3), momentum=0.8, nesterov=False)

    def network():
        inputs = keras.Input(digits.info.image_shape)
        x = keras.layers.Flatten()(inputs)
        return keras.Model(inputs, keras.layers.Dense(10)(x), name="small")

    def teach():
        method = KD(0.7, 2.0, corrections=[Focal(slope=5.0)])
        return Student(network(), network(), method, weight_decay=0.01)

    def train(make, generation, *callbacks, **options):
        seen = keras.callbacks.History()
        settings = Settings(schedule, 2, 20, seed=3, callbacks=[seen, *callbacks], **options)
        name = f"generation_{generation}"
        logs = tmp_path / "logs" / name
        Training(tmp_path / name, settings, generation, logs, name).run(make, digits)
        return seen.history

    logs = train(lambda: Patriarch(network(), primary_score=0.8, top_k=4), 0)
    transfer = Transfer(1, 0.004)
    with pytest.raises(KeyboardInterrupt):
        train(teach, 1, Stop(), transfer=transfer)
    train(teach, 1, transfer=transfer)

    found = rows(tmp_path / "logs")
    assert set(found) == {"generation_0", "generation_1"}
    hparams, last, sessions = found["generation_0"]
    given = {"epochs": 2, "batch_size": 20, "seed": 3, "network": "small"}
    given |= {"learning_rate": 0.05, "momentum": 0.8, "nesterov": False, "drops": "0.5, 0.75"}
    patriarch = {"patriarch": "tolerant", "primary_score": 0.8, "top_k": 4, "weight_decay": 0}
    named = {"name": "generation_0", "generation": 0, "trainer": "Patriarch"}
    assert hparams == {**given, **patriarch, **named}
    for split, prefix in (("train", ""), ("validation", "val_")):
        for figure in ("accuracy", "loss", "crossentropy"):
            expected = logs[f"{prefix}{figure}"][-1]
            np.testing.assert_allclose(last[f"{split}/epoch_{figure}"], expected, rtol=1e-6)
    hparams, last, sessions = found["generation_1"]
    student = {"methods": "kd+focal", "kd_weight": 0.7, "kd_temperature": 2, "weight_decay": 0.01}
    student |= {"kd_focal_slope": 5, "kd_focal_gamma": 1, "kd_focal_normalization": "l2"}
    student |= {"freeze_epochs": 1, "backbone_learning_rate": 0.004}
    named = {"name": "generation_1", "generation": 1, "trainer": "Student"}
    assert hparams == {**given, **student, **named}
    assert sessions == 1 and {"train/epoch_accuracy", "validation/epoch_accuracy"} <= set(last)


@pytest.mark.parametrize(
    ("methods", "own"),
    [
        ((KD(0.3, 3.0), Embedding(0.03)), {"methods": "kd+embedding", "kd_weight": 0.3}),
        ({"exit_1": KD(0.2, 1.0)}, {"exit_1_methods": "kd", "exit_1_kd_weight": 0.2}),
    ],
)
def test_what_exits_learn_with(methods, own):
    """Once where all exits learn alike, else of each that has a method."""
    inputs = x = keras.Input((4, 4, 1))
    for name in ("first", "second", "third"):
        x = keras.layers.Conv2D(2, 3, padding="same", name=name)(x)
    pooled = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, keras.layers.Dense(3)(pooled))
    network = models.add_exits(network, ["first", "second"], mid=2)
    trainer = SelfDistillation(network, methods, teacher=network, teacher_methods=[KD(0.9, 4.0)])
    found = trainer.hyperparameters()
    own |= {"teacher_methods": "kd", "teacher_kd_weight": 0.9, "teacher_kd_temperature": 4.0}
    assert own.items() <= found.items()
    assert "exit_2_methods" not in found
