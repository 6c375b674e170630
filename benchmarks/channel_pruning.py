"""Channel pruning beside Torch-Pruning: the same networks, images and fine-tuning steps.

    python benchmarks/channel_pruning.py RUN... --torch=PYTHON --results=FILE.json
        [--dataset=cifar100] [--data_dir=DIR] [--train_examples=N] [--validation_fraction=0.1]
        [--importance l1 taylor ...] [--share 0.5 0.33] [--epochs=4]

Each RUN is an output directory of `born_again` with the same CIFAR ResNet, one of each seed, and
the flags of its data are given again; PYTHON is that of an environment with PyTorch and
Torch-Pruning. All channels of a network are ranked together, and go until a share of the
multiply-accumulates is left; ours are ranked ten times, and recalibrated; then labels alone teach
what is left, in float32, with the same augmented batches in the same order. What is found is
written at once, and not measured again. The table has the accuracy on test images, ours minus
theirs of each pair, and the 95% interval of its mean over the runs (Student's t).
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import runs
from benchmarks.measure import cores, environment, format_table

PEER = Path(__file__).with_name("channel_pruning_peer.py")
RANKINGS = 10
"""How often our channels are ranked; theirs are in every step."""
SCORED = 640
"""Training images whose gradients Taylor's importance sees, in both."""


def prepare(run, folder, arguments):
    """Writes a run's network and images for both."""
    from kdtoolkit.models.saved import load_network

    splits = runs.load(arguments)
    network = load_network(run / "generation_0" / "network.keras")
    norm = network.get_layer("stem_bn")
    weights = {
        f"{layer.name}.{variable.name}": np.asarray(variable.value)
        for layer in network.layers
        for variable in layer.weights
    }
    np.savez(folder / "network.npz", epsilon=norm.epsilon, momentum=norm.momentum, **weights)
    network.save(folder / "network.keras")
    epochs = splits.train.epochs(arguments.batch_size, seed=0, epochs=arguments.epochs)
    for name, batches in (("train", epochs), ("test", splits.test.batches(500))):
        images, labels = zip(*batches.as_numpy_iterator(), strict=True)
        np.save(folder / f"{name}_x.npy", np.concatenate(images))
        np.save(folder / f"{name}_y.npy", np.concatenate(labels))
    images, labels = next(splits.train.batches(SCORED).as_numpy_iterator())
    np.save(folder / "score_x.npy", images)
    np.save(folder / "score_y.npy", labels)
    common = {name: getattr(arguments, name) for name in ("batch_size", "learning_rate")}
    (folder / "settings.json").write_text(json.dumps({**common, "threads": cores()}))


def theirs(folder, importance, share, python):
    """Figures of the peer: multiply-accumulates and accuracies, whole, pruned and fine-tuned."""
    command = [python, PEER, folder, importance, str(share)]
    # Its threads would spin at barriers, beside other processes for longer than they compute.
    quiet = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def ours(folder, importance, share, arguments):
    """Likewise, of `prune_channels`, and the accuracy with new statistics before fine-tuning."""
    import keras

    from kdtoolkit import models
    from kdtoolkit.compression import prune_channels, recalibrate
    from kdtoolkit.compression.importance import Taylor

    data = {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
    network = keras.models.load_model(folder / "network.keras", compile=False)
    score = importance
    if importance == "taylor":
        score = Taylor(np.array(data["score_x"]), np.array(data["score_y"]))
    pruned = prune_channels(
        network, importance=score, threshold="global", target=f"macs={share}", rankings=RANKINGS
    )
    found = {"macs": [models.macs(network), models.macs(pruned)]}
    found["accuracy"] = [accuracy(each, data) for each in (network, pruned)]
    recalibrate(pruned, data["score_x"])
    found["recalibrated"] = accuracy(pruned, data)
    steps = -(-len(data["train_y"]) // arguments.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(arguments.learning_rate, steps)
    pruned.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for start in range(0, len(data["train_y"]), arguments.batch_size):
        batch = slice(start, start + arguments.batch_size)
        pruned.train_on_batch(np.array(data["train_x"][batch]), np.array(data["train_y"][batch]))
    found["accuracy"].append(accuracy(pruned, data))
    return found


def accuracy(network, data):
    logits = network.predict(np.array(data["test_x"]), batch_size=500, verbose=0)
    return float(np.mean(logits.argmax(axis=-1) == data["test_y"]))


def table(results):
    """A row for each network, importance and share, before and after fine-tuning."""
    from kdtoolkit.intervals import t_interval

    rows = [
        ("importance, share of MACs", "ours", "recalibrated", "Torch-Pruning", "difference", "95%")
    ]
    keys = sorted({tuple(key.split("|")[1:]) for key in results})
    for key in keys:
        found = [value for name, value in results.items() if tuple(name.split("|")[1:]) == key]
        for place, when in ((1, "pruned"), (2, "fine-tuned")):
            pairs = np.array(
                [[value[side]["accuracy"][place] for side in ("ours", "theirs")] for value in found]
            )
            differences = pairs[:, 0] - pairs[:, 1]
            interval = t_interval(differences)
            shown = "" if interval is None else "{:+.2%}..{:+.2%}".format(*interval)
            own, peer = (f"{value:.2%}" for value in pairs.mean(axis=0))
            new = np.mean([value["ours"]["recalibrated"] for value in found])
            new = f"{new:.2%}" if place == 1 else ""
            difference = f"{differences.mean():+.2%}"
            rows.append((f"{', '.join(key)}, {when}", own, new, peer, difference, shown))
    return rows


def main(argv=None):
    parser = runs.parser(__doc__.splitlines()[0])
    parser.add_argument("--torch", required=True, metavar="PYTHON")
    parser.add_argument("--results", required=True, type=Path, metavar="FILE")
    parser.add_argument(
        "--importance", nargs="+", default=["l1", "group_norm", "bn_scale", "taylor"]
    )
    parser.add_argument("--share", nargs="+", type=float, default=[0.5, 0.33])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=0.02)
    arguments = parser.parse_args(argv)

    results = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    for run in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            measure(run, Path(folder), arguments, results)
    for line in environment(("kdtoolkit", "tensorflow", "keras", "numpy")):
        print(line)
    print(format_table(table(results)))


def measure(run, folder, arguments, results):
    """Adds what is not known of a run, one importance and share after another."""
    from kdtoolkit import files

    for importance, share in itertools.product(arguments.importance, arguments.share):
        key = "|".join((str(run), importance, str(share)))
        if key in results:
            continue
        if not any(folder.iterdir()):
            prepare(run, folder, arguments)
        results[key] = {
            "ours": ours(folder, importance, share, arguments),
            "theirs": theirs(folder, importance, share, arguments.torch),
        }
        files.write_json(arguments.results, results)
        print(key, json.dumps(results[key]), file=sys.stderr)


if __name__ == "__main__":
    main()
