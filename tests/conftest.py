"""Two logical CPU devices for every test: a two-replica strategy needs no GPU."""

import gc
import os
import types

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

_ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
_ONEDNN_AT_FIRST = os.environ.get(_ONEDNN)


def pytest_configure(config):
    """Imports TensorFlow where tests run: not in the process that hands them out to others."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import keras  # noqa: F401  with TensorFlow, before what they made is frozen
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from tensorflow.lite.python import lite

    cpu, *_ = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # The converter collects garbage for each file, and Keras for each training, which takes as long
    # as some conversions: it is left to the thresholds here.
    lite.gc = global_state.gc = types.SimpleNamespace(collect=lambda: 0)
    _freeze()
    gc.set_threshold(10_000, 10, 10)


def _freeze():
    """Has collections of garbage pass over what is there now.

    Modules and TensorFlow's caches are there for ever: a third of a second to walk through.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """After each file: what its tests leave behind stays."""
    if nextitem is None or nextitem.path != item.path:
        _freeze()


def pytest_runtest_setup(item):
    """Undoes what a command in this process has set for all that comes after it.

    And has plots of pages drawn where a module looks at them and says so, `DRAWN`: they take half a
    second for each run of a recipe.

    Deterministic operations last until the process ends, and Keras then refuses XLA. TensorFlow
    looked at oneDNN's variable when it was imported: processes that a later test compares with this
    one would compute other last bits where TensorFlow by itself leaves oneDNN off.
    """
    from tensorflow.python.util import _pywrap_determinism

    from kdtoolkit.report import page, svg

    page.inline = svg.inline if getattr(item.module, "DRAWN", False) else _undrawn
    _pywrap_determinism.enable(False)
    if _ONEDNN_AT_FIRST is None:
        os.environ.pop(_ONEDNN, None)
    else:
        os.environ[_ONEDNN] = _ONEDNN_AT_FIRST


def _undrawn(figure, name):
    return f'<svg id="{name}"></svg>'


def pytest_xdist_auto_num_workers():
    """As many as there are cores: one more waits less, and takes the caches from the others."""
    return len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items):
    """Files of worker processes first: each takes minutes, and is not to be left to the end."""
    items.sort(key=lambda item: item.path.name != "test_workers.py")


# One for the session: a second MirroredStrategy in a process reuses the keys of the first one's
# collectives, and TensorFlow then refuses tensors of other shapes.
@pytest.fixture(scope="session")
def two_replicas():
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
