"""Networks that a run is given: a file, or what another run's directory ended with."""

import atexit
import contextlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from kdtoolkit import cluster, files
from kdtoolkit.data import beside
from kdtoolkit.data.preprocessing import INPUT_RANGES
from kdtoolkit.recipes._command import UsageError, blaming, blaming_arguments
from kdtoolkit.recipes._session import losing_workers
from kdtoolkit.training import record

_JUDGES = 2048  # images, which look at a network before it is used
_LUCK = 1e-3  # probability


def network_path(path: str | os.PathLike[str], argument: str) -> Path:
    """Returns a `.keras` file: the path itself, or the network that a run's directory ended with.

    That is the last generation of `born_again`, the multi-exit network of `self_distillation`, the
    best student of `distill`, and the pruned network of `compress`.

    Args:
        path: of either.
        argument: the name it has on the command line, such as `--teacher`.

    Raises:
        UsageError: there is no such file, or the directory is not that of a finished run whose
            files are as it left them.
    """
    path = Path(path)
    if os.path.isfile(path):  # pathlib's own raises an error for what is too long for a name
        return path
    if not os.path.isdir(path):
        raise UsageError(
            f"{argument} must be a .keras file or a recipe's output directory. "
            f"Received: {argument}={path}"
        )
    try:
        results = files.read_record(path / record.RESULTS)
        recipe = results["recipe"]
        if recipe != "shrink":
            name = _LAST[recipe](results)
            record.read(path / name, {"name": name})
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(
            f"{argument}={path} is not the output directory of a finished recipe: {error}. Its "
            f"{record.NETWORK} can be named itself"
        ) from error
    if recipe == "shrink":
        raise UsageError(
            f"{argument}={path} is of shrink, which ends with a file for devices. A "
            f"{record.NETWORK} in it can be named itself"
        )
    return path / name / record.NETWORK


_LAST = {
    "born_again": lambda results: f"generation_{results['generations'][-1]['generation']}",
    "self_distillation": lambda results: "self_distillation",
    "distill": lambda results: "{method}/seed_{seed}".format(**results["best"]),
    "compress": lambda results: results["network"],
}


def name(path: str) -> str:
    """Returns what a network's file, or a run's directory, is called in the name of another run."""
    return Path(path).stem if path.endswith(".keras") else Path(path).resolve().name


def is_path(value: str) -> bool:
    """Whether a flag's value is a file or a directory of a network, not the name of a kind."""
    path = os.path.expanduser(value)
    return path.endswith(".keras") or os.sep in path or os.path.isdir(path)


def check_network(flags, flag: str) -> None:
    """Checks that a flag names a network, as `network_path` does; `~` is the home directory.

    Of several workers the chief alone looks: the others need not see its disk.

    Raises:
        UsageError: it names none.
    """
    flags[flag].value = os.path.expanduser(flags[flag].value)
    with blaming("strategy"):
        sees = cluster.is_chief(flags.strategy)
    if sees:
        network_path(flags[flag].value, f"--{flag}")


def fetch(flags, flag: str) -> Path:
    """Returns the file that a flag names, a network's or weights; on other workers a copy.

    All workers have to call this at the same point of their program.

    Raises:
        RunError: another worker ended.
    """
    if cluster.of_strategy(flags.strategy) is None:
        return network_path(flags[flag].value, f"--{flag}")
    from kdtoolkit.training import distribution

    def read():
        path = network_path(flags[flag].value, f"--{flag}")
        return str(path), path.read_bytes()

    strategy = distribution.strategy(flags.strategy)
    with losing_workers():
        source, content = distribution.from_chief(strategy, read)
    path = Path(source)
    if not distribution.is_chief(strategy):
        suffix = "".join(path.suffixes)  # .weights.h5 says what is inside
        with tempfile.NamedTemporaryFile(suffix=suffix, delete=False) as copy:
            copy.write(content)
        path = Path(copy.name)
        atexit.register(files.remove, path)
    return path


def loader(flags, flag: str, path: Path, data, exit: str | None = None, *, resize: bool = False):
    """Returns the function that loads the network of a flag, for the data's normalised images.

    The network is loaded once before, and its pixel values, those of the flag `FLAG_input`, judged.

    Args:
        flags, flag: of the run, and which of them names the network.
        path: of `fetch`.
        data: of the run.
        exit: of a multi-exit network, or None.
        resize: whether a network for images of another size sees the data's resized.

    Raises:
        UsageError: it is no classifier of the data's images and classes, or its pixel values are
            wrong.
    """
    from kdtoolkit.models import saved

    def load():
        with blaming(flag), blaming_arguments(flags):
            info = data.info
            return saved.load_classifier(path, info.image_shape, info.classes, exit, resize=resize)

    network = load()
    resized = next((x for x in network.layers if x.name == saved.RESIZED), None)
    if resized is not None and cluster.is_chief(flags.strategy):
        height, width, _ = data.info.image_shape
        print(
            f"--{flag}: sees the images of {height}x{width} resized to "
            f"{resized.height}x{resized.width}, which it was made for",
            file=sys.stderr,
        )
    pixels = input_range(network, data, flags, f"{flag}_input")
    if pixels == "normalized":
        say_normalisation(flags, flag, path, data.preprocessing)
    return lambda: saved.from_input_range(load(), data.preprocessing, pixels)


def say_normalisation(flags, flag: str, path: Path, preprocessing) -> None:
    """Says so where a network was trained on images that were normalised by other statistics.

    Args:
        flags, flag: of the run, and which of them names the network.
        path: of `fetch`.
        preprocessing: of the images that it is given here.
    """
    known = None
    with contextlib.suppress(ValueError):  # what lies beside it is of something else
        known = beside.read(path)
    if known is None or not cluster.is_chief(flags.strategy):
        return

    def statistics(of):
        return [" ".join(f"{value:.3f}" for value in values) for values in (of.mean, of.std)]

    (mean, std), (own_mean, own_std) = statistics(preprocessing), statistics(known[0])
    if (mean, std) != (own_mean, own_std):
        print(
            f"--{flag}: it was trained on images normalised by mean {own_mean} and deviation "
            f"{own_std}; here it sees them by this data set's, {mean} and {std}",
            file=sys.stderr,
        )


def load(path: Path):
    """Loads a network with all that it returns, for images that are normalised as it has them.

    Raises:
        ValueError: the file cannot be loaded.
    """
    from kdtoolkit.models import precision, saved

    return precision.in_policy(saved.load_network(path))


def input_range(network, data, flags, flag: str) -> str:
    """Returns the pixel values that a given network takes, of `INPUT_RANGES`.

    They are those that the flag names or, for `auto`, those that the network scales by itself, else
    normalised ones. Validation images judge that. Wrong are values with which the network is near
    chance while with others it is not: more of these images are then right, beyond what a binomial
    distribution leaves to luck, than the square root of chance, half-way to all in ratio, and than
    with twice the given values' lead over chance. Chance is the share of the largest class.

    Args:
        network: functional model, images to logits.
        data: of the run.
        flags, flag: of the run, and which of them names the values.

    Raises:
        UsageError: they are wrong; the message names the right ones.
    """
    from scipy import stats

    from kdtoolkit.models import input_range

    chosen = flags[flag].value
    if chosen == "auto":
        chosen = input_range.implied(network) or "normalized"
        if chosen != "normalized" and cluster.is_chief(flags.strategy):
            print(f"--{flag}: {chosen}, which the network scales by itself", file=sys.stderr)
    images, labels = (data.validation if len(data.validation) else data.train).spread(_JUDGES)
    chance = np.bincount(labels).max() / len(labels)
    ways = {"normalized": data.preprocessing, "unit": lambda x: x / 255, "bytes": lambda x: x}

    def right(of):
        return int(np.sum(_classes(network, ways[of], images) == labels))

    def accuracy(count):
        return f"{count / len(labels):.2%}"

    own = right(chosen)
    bar = max(np.sqrt(chance), chance + 2 * (own / len(labels) - chance))
    if bar >= 1:
        return chosen
    others = {of: right(of) for of in INPUT_RANGES if of != chosen}
    best = max(others, key=others.__getitem__)
    if stats.binom.sf(others[best] - 1, len(labels), bar) < _LUCK:
        raise UsageError(
            f"--{flag} must be the pixel values that the network was trained on: with {best} "
            f"{accuracy(others[best])} of {len(labels)} validation images are right, with {chosen} "
            f"{accuracy(own)}. Received: --{flag}={flags[flag].value}"
        )
    return chosen


def _classes(network, preprocess, images):
    import tensorflow as tf

    from kdtoolkit.data.parallel import prefetched
    from kdtoolkit.models.precision import in_float32

    batches = tf.data.Dataset.from_tensor_slices(images).batch(256)
    batches = prefetched(batches.map(lambda x: preprocess(tf.cast(x, tf.float32))))
    with in_float32(network):
        return network.predict(batches, verbose=0).argmax(axis=-1)


def remember(flags, flag: str, path: Path, output_dir: Path) -> str | None:
    """Notes in the output directory which file a run was given, or finds that it is the same.

    Of several workers the chief alone does this.

    Returns:
        The file's SHA-256; None on other workers.

    Raises:
        UsageError: it is another one, or the note cannot be read.
    """
    if not cluster.is_chief(flags.strategy):
        return None
    note = output_dir / f"{flag}.json"
    digest = files.sha256(path)
    if not note.exists():
        files.write_json(note, {"path": str(path), "sha256": digest})
        return digest
    try:
        known = files.read_json(note)["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"--output_dir={output_dir} cannot go on: {note.name} is damaged ({error})"
        ) from error
    if known != digest:
        raise UsageError(
            f"--{flag}={path} is another file than the one that --output_dir={output_dir} began "
            "with. Accepted: that file, or another directory"
        )
    return digest
