"""Two logical CPU devices for every test: a two-replica strategy needs no GPU."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# As commands have it. Where TensorFlow leaves it off, a command that a test runs in this process
# would switch it on for the processes started after it alone, and their last bits would differ.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import pytest
import tensorflow as tf

tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)


# One for the session: a second MirroredStrategy in a process reuses the keys of the first one's
# collectives, and TensorFlow then refuses tensors of other shapes.
@pytest.fixture(scope="session")
def two_replicas():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
