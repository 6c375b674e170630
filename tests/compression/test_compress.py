"""`compress` as a library call: its rows against the files, networks by hand, what is refused."""

import json
import math
import os
import random
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kdtoolkit import data, export, files, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit.compression import compress, select_channels, sensitivity_analysis
from kdtoolkit.compression.channel_graph import analyse
from kdtoolkit.compression.options import Options
from kdtoolkit.compression.rounds import Rounds
from kdtoolkit.export import parity
from kdtoolkit.export.file_cost import FileCost
from kdtoolkit.training import loop
from kdtoolkit.training.compute import Compute
from kdtoolkit.training.schedules import SCHEDULES


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", train_examples=120)


def small(width=8, size=8):
    x = image = keras.Input((size, size, 1))
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="first")(x)
    x = keras.layers.Conv2D(width, 3, padding="same", activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="small")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return small()


def run(network, digits, output_dir, **changes):
    options = {"epochs": 1, "batch_size": 40, "show_progress": False, **changes}
    return compress(network, digits, output_dir, schedule=SCHEDULES["digits"], **options)


def normalised(split):
    """The images as a network takes them, by the formula, in float64."""
    images = split.images / 255.0 - np.asarray(split.preprocessing.mean)
    return (images / np.asarray(split.preprocessing.std)).astype("float32")


def same(network, other):
    pairs = zip(network.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def right(path, split):
    """Share of the images that a file has right."""
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    found = [runner(image=image[None])["probabilities"][0].argmax() for image in split.images]
    return np.mean(np.equal(found, split.labels))


@pytest.fixture(scope="module")
def masked(network, digits, tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("masked") / "run"
    before = network.get_weights()
    result = run(
        *(network, digits, output_dir), sparsity=0.5, layers=["second"], quantize=("int8", "qat")
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))
    return output_dir, result


def test_rows_say_what_the_files_do(masked, digits):
    output_dir, result = masked
    names = ["original", "original, int8", "50% weights", "50% weights, int8", "50% weights, qat"]
    assert [row["variant"] for row in result.rows] == names == list(result.networks)
    for row in result.rows:
        path = output_dir / row["path"]
        assert row["test_accuracy"] == pytest.approx(right(path, digits.test))
        assert row["bytes"] == path.stat().st_size
        assert row["check"] == "passed"
        logits = result.networks[row["variant"]].predict(normalised(digits.validation), verbose=0)
        expected = np.mean(logits.argmax(-1) == digits.validation.labels)
        assert row["validation_accuracy"] == pytest.approx(expected)
    directories = [None, None, "pruned", "pruned", "quantized"]
    assert [row["directory"] for row in result.rows] == directories
    assert [row["quantization"] for row in result.rows] == ["float32", "int8"] * 2 + ["int8"]


def test_zeros_are_where_they_were_asked_for(masked):
    """Of 72 + 576 + 80 weights in kernels half of the 576."""
    _, result = masked
    for variant in ("50% weights", "50% weights, qat"):
        zeros = [
            np.sum(weight.numpy() == 0)
            for weight in result.networks[variant].trainable_variables
            if weight.name == "kernel"
        ]
        assert zeros == [0, 288, 0]
    assert [row["sparsity"] for row in result.rows] == pytest.approx([0, 0] + [288 / 728] * 3)
    assert result.network is result.networks["50% weights"]


def test_original_is_a_copy(masked, network):
    _, result = masked
    assert same(result.networks["original"], network)
    assert result.networks["original"] is not network


def test_directory_holds_the_networks(masked):
    output_dir, result = masked
    for directory, variant in (("pruned", "50% weights"), ("quantized", "50% weights, qat")):
        stored = keras.models.load_model(output_dir / directory / "network.keras")
        assert same(stored, result.networks[variant])
    names = {path.name for path in files.contents(output_dir)}
    assert names == {"compression.json", "export", "logs", "pruned", "quantized"}


def test_one_pattern_of_layers_is_no_list_of_letters(network, tmp_path):
    options = Options("channels", layers="sec*", quantize=())
    assert options == Options("channels", layers=["sec*"], quantize=())
    rounds = Rounds(options, None, None, None, tmp_path / "channels.json", {})
    assert list(rounds.select(analyse(network), 0).keep) == ["second"]


def test_channels_are_taken_out_and_a_finished_run_is_loaded(network, digits, tmp_path):
    options = {"structure": "channels", "methods": (), "quantize": ()}
    result = run(network, digits, tmp_path, **options)
    before, after = result.rows
    width = 4
    weights = (9 * width + width) + (9 * width * width + width) + (10 * width + 10)
    assert after["parameters"] == weights
    assert sum(weight.size for weight in result.network.get_weights()) == weights
    assert before["macs"] == 64 * 9 * 8 + 64 * 9 * 64 + 80
    assert after["macs"] == 64 * 9 * 4 + 64 * 9 * 16 + 40
    path = tmp_path / "pruned" / "network.keras"
    time = path.stat().st_mtime_ns
    again = run(network, digits, tmp_path, **options)
    assert path.stat().st_mtime_ns == time
    assert same(again.network, result.network)
    stored = json.loads((tmp_path / "compression.json").read_text())
    assert (stored["structure"], stored["sparsity"]) == ("channels", 0.5)
    for changes, differs in (
        ({"sparsity": 0.25}, r"sparsity=0\.5 there, sparsity=0\.25 here"),
        ({"network": small()}, "network='?[0-9a-f]{64}'? there, network=[0-9a-f]{64} here"),
    ):
        with pytest.raises(files.OtherRunError, match=f"`output_dir`.*{differs}"):
            run(**{"network": network, **options, **changes}, digits=digits, output_dir=tmp_path)


def test_channels_go_in_rounds_down_to_a_target(network, digits, tmp_path):
    """In each as many as leave the same share of the operations; after the last, as asked for."""
    options = {"structure": "channels", "target": "macs=0.3", "rounds": 2, "quantize": ()}
    options |= {"importance": "taylor", "threshold": "global", "limit": 0.7}
    result = run(network, digits, tmp_path, **options)
    before, after = result.rows
    assert after["variant"] == "macs=0.3 channels"
    assert (tmp_path / after["path"]).name == "macs-0.3-channels.tflite"
    first = keras.models.load_model(tmp_path / "round_1" / "network.keras")
    pruned = keras.models.load_model(tmp_path / "pruned" / "network.keras")
    shares = [models.macs(each) / before["macs"] for each in (first, pruned)]
    assert after["macs"] == models.macs(result.network) == models.macs(pruned)

    def widths(net):
        return [net.get_layer(name).filters for name in ("first", "second")]

    def share(first, second):
        return (64 * 9 * (first + first * second) + 10 * second) / before["macs"]

    # One channel more in either layer, and a round would miss its share.
    for found, wanted, net in zip(shares, (0.3**0.5, 0.3), (first, pruned), strict=True):
        assert found == pytest.approx(share(*widths(net)))
        assert found <= wanted
        one, other = widths(net)
        assert max(share(one + 1, other), share(one, other + 1)) > wanted
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/network.keras")}
    again = run(network, digits, tmp_path, **options)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert len(times) == 2 and same(again.network, result.network)


# Of two kinds the first one's file is to be small: with KDTOOLKIT_TEST=all.
KINDS = [("int8",), ()] + [("qat", "int8")] * (os.environ.get("KDTOOLKIT_TEST") == "all")


@pytest.mark.parametrize("kinds", KINDS)
def test_channels_go_down_to_the_bytes_of_a_file(kinds, digits, tmp_path):
    """Of the first kind that is asked for."""
    network = small(width=24)
    for layer in network.layers:  # biases of zeros alone are not in a file
        layer.set_weights([w + 0.01 * np.arange(w.shape[-1]) for w in layer.get_weights()])
    options = {"structure": "channels", "target": "bytes=0.7", "threshold": "global"}
    result = run(network, digits, tmp_path, **options, quantize=kinds)
    kind = kinds[0] if kinds else "float32"
    suffix = "" if kind == "float32" else f", {kind}"
    (after,) = [r for r in result.rows if r["variant"] == f"bytes=0.7 channels{suffix}"]
    (reached,) = result.rounds
    assert after["bytes"] == (tmp_path / after["path"]).stat().st_size == reached["found"]
    assert after["bytes"] <= 0.7 * reached["whole"] == reached["most"]
    if kind != "qat":
        (before,) = [r for r in result.rows if r["variant"] == f"original{suffix}"]
        assert before["bytes"] == reached["whole"]


def test_what_was_chosen_once_is_what_a_killed_run_goes_on_with(
    network, digits, tmp_path, monkeypatch
):
    """Milliseconds are others each time: noise here, of more than a channel."""
    noise = random.Random(0)

    def milliseconds(self, network):
        return (1 + noise.random()) * network.get_layer("first").filters

    def killed(self, *args):
        raise KeyboardInterrupt

    monkeypatch.setattr(FileCost, "milliseconds", milliseconds)
    options = {"structure": "channels", "target": "ms=6ms", "rounds": 2, "quantize": ()}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop.Training, "complete", killed)
        run(network, digits, tmp_path, **options)
    first, second = files.read_record(tmp_path / "channels.json")["chosen"]
    assert second["most"] == pytest.approx((first["whole"] * 6) ** 0.5)
    result = run(network, digits, tmp_path, **options)
    stored = files.read_record(tmp_path / "channels.json")["chosen"]
    assert stored[:2] == [first, second]
    round_1 = keras.models.load_model(tmp_path / "round_1" / "network.keras")
    assert round_1.get_layer("first").filters == sum(second["keep"].get("first", [True] * 8))
    assert result.rounds[1]["most"] == 6 >= result.rounds[1]["found"]
    monkeypatch.setattr(FileCost, "milliseconds", None)  # a finished run measures none
    again = run(network, digits, tmp_path, **options)
    assert again.rounds == result.rounds
    assert same(again.network, result.network)
    with pytest.warns(UserWarning, match="channels.json is damaged.*chosen anew"):
        (tmp_path / "channels.json").write_text("{}")
        monkeypatch.setattr(FileCost, "milliseconds", milliseconds)
        run(network, digits, tmp_path, **options)


def test_channels_are_ranked_anew_as_often_as_asked_for(network, digits, tmp_path):
    options = {"target": "macs=0.3", "threshold": "global"}
    keep = select_channels(network, rankings=3, **options)
    once = select_channels(network, **options)
    result = run(
        *(network, digits, tmp_path), structure="channels", quantize=(), rankings=3, **options
    )
    widths = {name: result.network.get_layer(name).filters for name in keep}
    assert widths == {name: mask.sum() for name, mask in keep.items()}
    chosen = files.read_record(tmp_path / "channels.json")["chosen"][0]["keep"]
    assert chosen == {name: mask.tolist() for name, mask in keep.items()}
    assert any(mask.tolist() != chosen[name] for name, mask in once.items())


def test_several_rounds_remove_what_one_does(network, digits, tmp_path):
    options = {"structure": "channels", "sparsity": 0.5, "quantize": (), "methods": ()}
    result = run(network, digits, tmp_path, rounds=3, **options)
    assert [result.network.get_layer(name).filters for name in ("first", "second")] == [4, 4]


def test_resnet8_from_a_function_in_integers_alone(digits, tmp_path):
    """Nothing is trained; `claim` holds the directory, which knows its arguments all the same."""
    keras.utils.set_random_seed(1)
    resnet8 = models.build("resnet8", (8, 8, 1), 10)
    made = []

    def build():
        made.append(keras.models.clone_model(resnet8))
        made[-1].set_weights(resnet8.get_weights())
        return made[-1]

    seen = []
    options = {"structure": "none", "quantize": ["uint8", "float16"]}
    result = run(
        *(build, digits, tmp_path), **options, claim=lambda: seen.append(list(tmp_path.iterdir()))
    )
    assert seen == [[]]
    assert {path.name for path in tmp_path.iterdir()} == {"compression.json", "export"}
    assert [row["quantization"] for row in result.rows] == ["float32", "uint8", "float16"]
    assert {row["directory"] for row in result.rows} == {None}
    assert result.network in made


def test_sensitivity_is_found_out_once(network, digits, tmp_path, monkeypatch):
    options = {"structure": "none", "quantize": ["float16"], "sensitivity": True}
    result = run(network, digits, tmp_path, **options)
    found = files.read_record(tmp_path / "sensitivity.json")
    assert found["accuracy"] == result.rows[0]["validation_accuracy"]
    assert len(found["rows"]) == 2 * 3 + 3  # groups at shares, and layers
    monkeypatch.setattr(sensitivity_analysis, "sensitivity", None)
    run(network, digits, tmp_path, **options)
    other = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(ArgumentError, match="channels that can be removed") as caught:
        run(other, digits, tmp_path / "other", **options)
    assert caught.value.argument == "sensitivity"
    assert not (tmp_path / "other").exists()


def test_a_conversion_that_is_wrong_is_an_error(network, digits, tmp_path, monkeypatch):
    """Nothing was rounded, and no digit may be off here."""
    monkeypatch.setitem(parity.TOLERANCES, "float32", parity.Tolerance(-1, -1))
    with pytest.raises(export.ParityError, match=r"original\.tflite \(float32\) differs"):
        run(network, digits, tmp_path, structure="none")
    assert not list(tmp_path.glob("export/*"))


def test_directory_that_another_thread_writes_to_is_refused(network, digits, tmp_path):
    with (
        files.locked(tmp_path),
        ThreadPoolExecutor() as other,
        pytest.raises(files.InUseError, match=f"{tmp_path} is in use"),
    ):
        other.submit(run, network, digits, tmp_path).result()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("changes", "argument", "message"),
    [
        ({"structure": "blocks"}, "structure", "one of weights, channels.*'blocks'"),
        ({"layers": ["secnd"]}, "layers", "'secnd', which matches none. Near matches: second"),
        ({"layers": ["secnd"], "structure": "channels"}, "layers", "'secnd'.*: second"),
        ({"structure": "2:4", "layers": ["first"]}, "structure", "divide by 4.*first"),
        ({"batch_size": 120}, "epochs", "two steps.*epochs=1"),
        ({"compute": Compute(steps_per_execution=2)}, "compute", "one step an execution"),
        ({"methods": "fitnet"}, "layers", "of fitnet must be given where"),
        ({"methods": "similarity", "batch_size": 1}, "batch_size", "2 with similarity"),
        ({"network": lambda: small(size=9)}, None, r"`data`.*\(9, 9, 1\)"),
    ],
)
def test_nothing_is_written_before_all_is_checked(
    network, digits, tmp_path, changes, argument, message
):
    with pytest.raises(ValueError, match=message) as caught:
        run(**{"network": network, **changes}, digits=digits, output_dir=tmp_path / "run")
    if argument is not None:
        assert isinstance(caught.value, ArgumentError)
        assert caught.value.argument == argument
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "structure", "sparsity"),
    [
        ({}, "weights", 0.8),
        ({"structure": "channels"}, "channels", 0.5),
        ({"structure": "2:4"}, "2:4", 0.5),
        ({"structure": "none"}, "none", 0.0),
        ({"structure": "weights", "sparsity": 0}, "none", 0),
        ({"structure": "weights", "sparsity": 0.3}, "weights", 0.3),
        ({"structure": "channels", "target": "macs=0.4"}, "channels", None),
    ],
)
def test_usual_sparsities(options, structure, sparsity):
    found = Options(**options)
    assert (found.structure, found.sparsity) == (structure, sparsity)
    assert found.masks == (structure in ("weights", "2:4"))


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"threshold": "model"}, "threshold", "one of layer, global"),
        ({"threshold": "global", "structure": "2:4"}, "threshold", "layer for the structure 2:4"),
        ({"structure": "channels", "importance": "l3"}, "importance", "one of l1, l2.*'l3'"),
        ({"importance": "taylor"}, "importance", "left out for the structure weights.*taylor"),
        ({"rounds": 2}, "rounds", "left out for the structure weights"),
        ({"target": "macs=0.5"}, "target", "left out for the structure weights"),
        ({"structure": "channels", "target": "macs"}, "target", "of macs, parameters, bytes or ms"),
        (
            {"structure": "channels", "target": "macs=0.5", "sparsity": 0.5},
            *("target", "left out beside a sparsity"),
        ),
        ({"structure": "channels", "limit": 0}, "limit", r"in \(0, 1\]"),
        ({"structure": "channels", "rounds": 0}, "rounds", "positive"),
        ({"sparsity": 1}, "sparsity", r"in \[0, 1\).*=1"),
        ({"sparsity": math.nan}, "sparsity", r"in \[0, 1\).*nan"),
        ({"sparsity": 0.6, "structure": "2:4"}, "sparsity", "0.5 for the structure 2:4"),
        ({"quantize": ["int-8"]}, "quantize", "one of float32.*Near matches: int8"),
        ({"quantize": ["int8", "int8"]}, "quantize", "different kinds"),
        ({"max_accuracy_drop": 0.02}, "max_accuracy_drop", "no mixed file"),
        (
            {"structure": "channels", "target": "bytes=0.5", "quantize": ["mixed"]},
            "target",
            "of macs or parameters where the first kind of file is mixed",
        ),
        ({"rankings": 2}, "rankings", "left out for the structure weights"),
        ({"structure": "none", "quantize": ["float32"]}, "quantize", "nothing is pruned"),
        ({"calibration_images": 0}, "calibration_images", "positive"),
    ],
)
def test_options_that_are_refused(options, argument, message):
    with pytest.raises(ArgumentError, match=message) as caught:
        Options(**options)
    assert caught.value.argument == argument
