"""What a training leaves for TensorBoard."""

import keras
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kdtoolkit.training.loop import TensorBoard


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
    own, keras_own = TensorBoard(tmp_path / "own"), keras.callbacks.TensorBoard(tmp_path / "keras")
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
