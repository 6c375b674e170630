"""What is imported once for all processes that tests start: see `tests.processes`."""

import contextlib
import os

from kdtoolkit import _network

with contextlib.suppress(OSError):
    _network.move_into_new()  # while there is one thread only, as the system asks

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # what is read is what Python says

import keras  # noqa: F401
import tensorflow as tf  # noqa: F401

from kdtoolkit import data, training  # noqa: F401
