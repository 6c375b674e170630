"""By what an output directory knows the arguments of a call again."""

import keras
import pytest

from kdtoolkit import files, models
from kdtoolkit._claim import design, fingerprint, held
from kdtoolkit.training import strategy


def test_arguments_are_compared_whoever_holds_the_directory(tmp_path):
    calls = []

    def hold(**arguments):
        with held(strategy("one_device"), tmp_path, "own.json", arguments, lambda: calls.append(1)):
            pass

    hold(data="a", epochs=1)
    hold(data="a", epochs=1)
    with pytest.raises(files.OtherRunError, match=r"with data=a there, data=b here$"):
        hold(data="b", epochs=1)
    assert len(calls) == 3  # each before anything was written
    assert files.read_json(tmp_path / "own.json") == {"data": "a", "epochs": 1}


def test_a_run_may_go_on_in_another_precision():
    def build():
        keras.utils.set_random_seed(0)
        return models.build("resnet8", (8, 8, 1), 10)

    exact, before = build(), keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = build()
    finally:
        keras.config.set_dtype_policy(before)
    assert mixed.layers[1].compute_dtype == "bfloat16"
    assert (design(mixed), fingerprint(mixed)) == (design(exact), fingerprint(exact))
    mixed.layers[1].kernel.assign_add(mixed.layers[1].kernel)
    assert design(mixed) == design(exact) and fingerprint(mixed) != fingerprint(exact)
