"""A real `fit` as a contender: one long call, in a thread of its own, let on a few steps at a time.

Called anew for every few steps, `fit` would add the start of an epoch to each of them.
"""

import queue
import threading

import numpy as np


def paced(fit):
    """Returns `run` of a `Contender`.

    Args:
        fit: called once, with a Keras callback, at the first step; it trains for long enough.
    """
    import keras

    orders, answers = queue.SimpleQueue(), queue.SimpleQueue()

    class Pace(keras.callbacks.Callback):
        # At the beginnings of steps alone: for a callback at their ends, Keras waits for the device
        # after every step.
        left = None

        def on_train_batch_begin(self, batch, logs=None):
            if self.left == 0:
                np.asarray(self.model.trainable_variables[0])  # waits for the device
                answers.put(None)
            if not self.left:
                self.left = orders.get()
            self.left -= 1

    def train():
        try:
            fit(Pace())
            answers.put(RuntimeError("the training ended before the benchmark did"))
        except Exception as error:
            answers.put(error)

    thread = threading.Thread(target=train, daemon=True)

    def run(steps):
        if thread.ident is None:
            thread.start()
        orders.put(steps)
        error = answers.get()
        if error is not None:
            raise error

    return run
