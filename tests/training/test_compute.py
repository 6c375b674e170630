"""What a run computes with, decided as a table; and that trainings do compute so."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import data
from kdtoolkit.models.layers import classifier
from kdtoolkit.recipes import born_again, compress
from kdtoolkit.training import Patriarch, compute, loop
from kdtoolkit.training.compute import BY_KERAS, Compute, Device, choose
from kdtoolkit.training.schedules import SCHEDULES
from tests import processes

CPU = Device("CPU x86_64, 2 cores")
ZEN = Device("CPU x86_64, 2 cores", bfloat16=True)
HOPPER = Device("NVIDIA H100", gpu=True, bfloat16=True)
TURING = Device("Tesla T4", gpu=True)


@pytest.mark.parametrize(
    ("device", "replicas", "asked", "precision", "xla", "deterministic", "said"),
    [
        (CPU, 1, {}, "float32", False, True, "float32, no XLA (faster here), oneDNN on, determini"),
        (CPU, 2, {}, "float32", False, True, "float32, no XLA (faster here)"),
        (HOPPER, 1, {}, "bfloat16", True, False, "H100: bfloat16, XLA, not deterministic"),
        (HOPPER, 8, {}, "bfloat16", False, False, "bfloat16, no XLA (8 replicas), not determin"),
        (TURING, 1, {}, "float32", True, False, "float32, XLA, not deterministic"),
        # Asked for: the rest fits in, and what costs time is said to.
        (CPU, 1, {"precision": "bfloat16"}, "bfloat16", True, False, "16 (slower here), XLA, one"),
        (ZEN, 1, {}, "bfloat16", False, True, "cores: bfloat16, no XLA (faster here), oneDNN on"),
        (ZEN, 2, {}, "bfloat16", False, True, "cores: bfloat16, no XLA (faster here), oneDNN on"),
        (ZEN, 1, {"precision": "float32"}, "float32", False, True, "cores: float32, no XLA"),
        (CPU, 2, {"precision": "bfloat16"}, "bfloat16", False, False, "no XLA (2 replicas)"),
        (
            *(CPU, 1, {"precision": "bfloat16", "xla": "false"}),
            *("bfloat16", False, True, "bfloat16 (slower here), no XLA (slower here)"),
        ),
        (
            *(CPU, 1, {"precision": "bfloat16", "deterministic": "true"}),
            *("bfloat16", False, True, "no XLA (deterministic)"),
        ),
        (CPU, 1, {"xla": "true"}, "float32", True, False, "float32, XLA (slower here), oneDNN"),
        (CPU, 1, {"deterministic": "false"}, "float32", False, False, "not deterministic"),
        (HOPPER, 1, {"precision": "float32"}, "float32", True, False, "float32, XLA"),
        (HOPPER, 1, {"xla": "false"}, "bfloat16", False, False, "no XLA (slower here)"),
        (
            *(HOPPER, 1, {"deterministic": "true"}),
            *("bfloat16", False, True, "no XLA (deterministic), deterministic (slower here)"),
        ),
        (TURING, 1, {"precision": "bfloat16"}, "bfloat16", True, False, "bfloat16 (slower here)"),
    ],
)
def test_what_is_chosen(device, replicas, asked, precision, xla, deterministic, said, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    chosen = choose(device, replicas, **asked)
    assert chosen.summary.startswith(f"computing on {device.name}: ")
    assert said in chosen.summary
    assert chosen == Compute(precision, xla, 1, deterministic, chosen.summary)


@pytest.mark.parametrize(
    ("device", "asked", "expected", "said"),
    [
        (HOPPER, {"data_bytes": 150_000_000}, True, "XLA, data on the device, not determin"),
        (HOPPER, {"data_bytes": 2**31 + 1}, False, None),
        (HOPPER, {"data_bytes": None}, False, None),  # streamed
        (HOPPER, {"data_bytes": 9, "xla": "false"}, False, None),
        (HOPPER, {"data_bytes": 9, "data_on_device": "false"}, False, None),
        (HOPPER, {"data_bytes": 2**31 + 1, "data_on_device": "true"}, True, "data on the device,"),
        (ZEN, {"data_bytes": 9}, False, None),
        (ZEN, {"data_bytes": 9, "data_on_device": "true"}, True, "on the device (slower here)"),
    ],
)
def test_where_data_are_kept(device, asked, expected, said):
    chosen = choose(device, **asked)
    assert chosen.data_on_device is expected
    assert (said or "computing on") in chosen.summary
    assert ("on the device" in chosen.summary) is expected


@pytest.mark.parametrize(
    ("replicas", "asked", "message"),
    [
        (1, {"precision": "float16"}, "`precision` must be one of auto, float32, bfloat16"),
        (1, {"xla": "yes"}, "`xla` must be one of .* Received: xla='yes'"),
        (1, {"deterministic": True}, "`deterministic` must be one of .*=True"),
        (2, {"xla": "true"}, "`xla` must be auto or false for 2 replicas"),
        (
            1,
            {"xla": "true", "deterministic": "true"},
            "`xla` must .* where operations are deterministic",
        ),
        (1, {"data_on_device": "yes"}, "`data_on_device` must be one of auto.*='yes'"),
        (1, {"data_on_device": "true"}, "`data_on_device` must be .* without `data_bytes`"),
        (2, {"data_on_device": "true", "data_bytes": 9}, "`data_on_device` must .* 2 replicas"),
        (1, {"steps_per_execution": 0}, "`steps_per_execution` must be a positive integer.*=0"),
        (2, {"steps_per_execution": 2}, "`steps_per_execution` must be 1 for 2 replicas"),
    ],
)
def test_what_cannot_be(replicas, asked, message):
    with pytest.raises(ValueError, match=message):
        choose(CPU, replicas, **asked)


def test_this_device_is_a_cpu_with_its_cores():
    device = compute.this_device()
    assert not device.gpu
    assert device.name.endswith(f", {len(os.sched_getaffinity(0))} cores")


@pytest.mark.parametrize(
    ("flags", "onednn", "expected"),
    [
        ("fpu avx512f avx512_bf16", "1", True),
        ("fpu amx_bf16", "1", True),
        ("fpu avx512f", "1", False),
        ("fpu avx512_bf16", "0", False),  # instructions that nobody uses
        ("fpu avx512_bf16", "false", False),
    ],
)
def test_bfloat16_is_for_cpus_that_compute_it(flags, onednn, expected, monkeypatch):
    monkeypatch.setattr(compute, "_cpu_flags", lambda: set(flags.split()))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    assert compute.this_device().bfloat16 is expected


@pytest.mark.parametrize(
    ("choice", "before", "after"),
    [
        ("auto", None, "1"),
        ("auto", "0", "0"),
        ("auto", "1", "1"),
        ("true", "0", "1"),
        ("false", None, "0"),
    ],
)
def test_onednn_is_on_unless_someone_says_otherwise(choice, before, after, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", before or "")
    if before is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    compute.set_onednn(choice)
    summary = choose(CPU).summary
    assert ("oneDNN on" in summary, "oneDNN off" in summary) == (after == "1", after == "0")
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == after


def test_import_is_light():
    script = (
        "import sys; from kdtoolkit.training import compute; compute.set_onednn()\n"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def digits(train_examples):
    return data.load("digits", train_examples=train_examples)


def train(directory, chosen, images, epochs=1, **options):
    """Trains a small network on digits; returns it and the trainer that did."""
    trainers = []

    def make_trainer():
        image = keras.Input((8, 8, 1))
        x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
        logits = classifier(x, 10)
        trainers.append(Patriarch(keras.Model(image, logits), "plain"))
        return trainers[-1]

    settings = loop.Settings(SCHEDULES["digits"], epochs, batch_size=20, compute=chosen, **options)
    network, _ = loop.Training(directory, settings).run(make_trainer, digits(images))
    return network, trainers[0]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    network, _ = train(tmp_path_factory.mktemp("reference"), choose(CPU), 40)
    return network.get_weights()


@pytest.mark.parametrize(
    ("chosen", "dtype", "jit"),
    [
        (BY_KERAS, "float32", False),
        (choose(CPU, xla="true"), "float32", True),
        (choose(CPU, precision="bfloat16"), "bfloat16", True),
    ],
    ids=["by Keras", "XLA", "bfloat16"],
)
def test_training_computes_as_chosen(chosen, dtype, jit, reference, tmp_path):
    network, trainer = train(tmp_path, chosen, 40)
    assert keras.config.dtype_policy().name == "float32"  # as it was before
    assert trainer.jit_compile is jit
    assert network.get_layer("conv").compute_dtype == dtype
    assert {v.dtype for v in network.variables} == {"float32"}
    assert network.output.dtype == network.get_layer("logits").compute_dtype == "float32"
    # Rounding to 8 bits apart, all of them took the same two steps.
    for expected, found in zip(reference, network.get_weights(), strict=True):
        tolerance = 2e-2 if dtype == "bfloat16" else 1e-5
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_a_policy_that_was_set_before_is_kept_unless_a_precision_is_chosen():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with BY_KERAS.policy():
            assert keras.layers.Dense(1).compute_dtype == "bfloat16"
        with pytest.raises(KeyError), choose(CPU).policy():
            assert keras.layers.Dense(1).compute_dtype == "float32"
            raise KeyError
        assert keras.layers.Dense(1).compute_dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_several_steps_at_once_take_the_same_steps(tmp_path):
    one, _ = train(tmp_path / "one", choose(CPU), 80, epochs=2)
    two, trainer = train(tmp_path / "two", choose(CPU, steps_per_execution=2), 80, epochs=2)
    assert int(trainer.optimizer.iterations) == 2 * 80 // 20
    for expected, found in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("xla", ["false", "true"])
def test_data_on_the_device_are_the_same_data(xla, tmp_path):
    options = {"xla": xla, "precision": "float32", "data_bytes": 40 * 64}
    host, _ = train(tmp_path / "host", choose(CPU, **options), 40, epochs=2)
    chosen = choose(CPU, **options, data_on_device="true")
    device, trainer = train(tmp_path / "device", chosen, 40, epochs=2)
    assert trainer.jit_compile is (xla == "true")
    tolerance = 1e-5 if xla == "true" else 0
    for expected, found in zip(host.get_weights(), device.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance / 10)


def test_data_on_the_device_of_a_strategy(tmp_path):
    """Keras then builds the model on what the data set holds, which are not images."""
    chosen = choose(CPU, data_bytes=40 * 64, data_on_device="true")
    expected, _ = train(tmp_path / "own", chosen, 40)
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    found, _ = train(tmp_path / "strategy", chosen, 40, strategy=strategy)
    for a, b in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


def test_a_reader_is_for_one_replica(two_replicas):
    with two_replicas.scope():
        trainer = Patriarch(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), "plain")
        with pytest.raises(ValueError, match=r"`reader` must be None .* 2 replicas"):
            trainer.compile("sgd", reader=lambda x: x)


def test_an_epoch_is_whole_groups_of_steps(tmp_path):
    with pytest.raises(ValueError, match="`steps_per_execution` must divide the 3 steps of an ep"):
        train(tmp_path, choose(CPU, steps_per_execution=2), 60)


def test_a_loss_that_is_not_finite_is_found_before_the_epoch_ends():
    """Of steps executed in threes `on_train_batch_end` sees 2, 5, 8, ...: no multiple of 50."""
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    trainer = Patriarch(network, "plain")
    trainer.compile(keras.optimizers.SGD(0.0), steps_per_execution=3)
    images = np.ones((600, 4), "float32")
    images[3] = np.nan
    batches = tf.data.Dataset.from_tensor_slices((images, np.zeros(600, int))).batch(1)
    seen = []
    after = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(batch)
    )
    with pytest.raises(Exception, match="epoch 0, step 3"):
        trainer.fit(batches, verbose=0, callbacks=[after])
    assert seen[-1] < 100


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--precision=bfloat61"], ["--precision", "matches: bfloat16"]),
        (["--precision=float16"], ["--precision", "float32, bfloat16", "float16"]),
        (["--xla=1"], ["--xla", "auto, true, false", "1"]),
        (["--onednn=off"], ["--onednn", "auto, true, false", "off"]),
        (["--deterministic=no"], ["--deterministic", "no"]),
        (["--xla=true", "--deterministic=true"], ["--xla", "deterministic"]),
        (["--data_on_device=gpu"], ["--data_on_device", "auto, true, false", "gpu"]),
        (["--steps_per_execution=0"], ["--steps_per_execution", "positive", "0"]),
        # This needs the data, and so TensorFlow; still nothing is written.
        (["--steps_per_execution=4"], ["--steps_per_execution", "divide the 21 steps", "4"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else None,
)
def test_mistakes_are_one_line_and_status_2(arguments, parts, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    monkeypatch.chdir(tmp_path)
    assert born_again.RECIPE.main([*arguments, "--batch_size=64"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for part in ("born_again: ", *parts):
        assert part in error
    assert list(tmp_path.iterdir()) == []


def test_weights_are_masked_between_single_steps(tmp_path, capsys):
    path = tmp_path / "network.keras"
    path.write_bytes(b"")
    flags = [f"--model={path}", "--structure=weights", "--steps_per_execution=2"]
    assert compress.RECIPE.main(flags) == 2
    assert "--steps_per_execution must be 1 for --structure=weights" in capsys.readouterr().err


def test_a_run_in_bfloat16_says_so_and_exports_float32(tmp_path):
    """In a process of its own: what a process computes with is settled once."""
    command = ["-m", "kdtoolkit.recipes.born_again", "--smoke"]
    command += [
        "--precision=bfloat16",
        "--xla=true",
        "--generations=0",
        f"--output_dir={tmp_path / 'run'}",
    ]
    done = processes.run(*command)
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("computing")]
    assert said.startswith("computing on CPU ")
    for part in (": bfloat16", "XLA", ", oneDNN o", ", not deterministic"):
        assert part in said
    assert "jit_compile" not in done.stderr  # Keras did not decide otherwise
    network = keras.models.load_model(tmp_path / "run-smoke/generation_0/network.keras")
    assert network.get_layer("stem_conv").compute_dtype == "float32"  # fit for any machine
    results = json.loads((tmp_path / "run-smoke/results.json").read_text())
    assert [row["precision"] for row in results["generations"]] == ["bfloat16"]
    served = tf.saved_model.load(str(tmp_path / "run-smoke/export/saved_model"))
    graph = str(served.signatures["serving_default"].graph.as_graph_def())
    assert ("Conv2D" in graph, "DT_BFLOAT16" in graph) == (True, False)
    command[-1] = f"--output_dir={tmp_path / 'run'}"
    other = [part for part in command if not part.startswith("--precision")]
    done = processes.run(*other)
    assert done.returncode == 2
    assert "--precision=bfloat16 there, --precision=auto here" in done.stderr
