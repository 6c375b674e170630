"""A run that was finished before: known by what it left, and shown again without TensorFlow."""

import datetime
import sys
from pathlib import Path

from kdtoolkit import cluster, files
from kdtoolkit.data.wording import listed
from kdtoolkit.recipes import _command, _networks, _outputs, _report, _session


def results(recipe: str, flags) -> dict | None:
    """Returns `results.json` of a run that is finished, whose flags are these; says so in one line.

    Of several workers the chief alone looks; the others learn of it, and are done.

    Returns:
        None where there is something to do: the run is not finished, a file that it left is not as
        it left it, or a network or data that it was given are others now.

    Raises:
        Done: the run is finished, and this is a worker that does not write.
        RunError: another worker ended.
    """
    if cluster.of_strategy(flags.strategy) is None:
        found = _read(flags)
    else:
        from kdtoolkit.training import distribution

        _command.import_libraries(flags.onednn)
        _session.prepare_process(flags)
        with _session.losing_workers():
            strategy = distribution.strategy(flags.strategy)
            found = distribution.from_chief(strategy, lambda: _read(flags))
        if found is not None and not cluster.is_chief(flags.strategy):
            raise _command.Done
    if found is not None:
        when = datetime.datetime.fromisoformat(found["finished"])
        machine = "{device}, {cores} cores".format(**found["environment"])
        print(
            f"{recipe}: finished on {when:%Y-%m-%d at %H:%M} UTC ({machine}), in "
            f"{flags.output_dir}; what it ended with:",
            file=sys.stderr,
        )
    return found


def _digest(flags, flag):
    """SHA-256 of the data or the network that a flag names; of a list, of each by its name."""
    value = flags[flag].value
    if flag == "dataset":
        return _session.data_digest(value)
    if isinstance(value, list):
        return {network.name: network.sha256 for network in _networks.find(value, f"--{flag}")}
    return files.sha256(_outputs.network_path(value, f"--{flag}"))


def _read(flags):
    output_dir = Path(flags.output_dir)
    path = output_dir / "results.json"
    if not path.is_file():
        return None
    try:
        found = files.read_record(path)
        datetime.datetime.fromisoformat(found["finished"])
        left, given = found["files"], found.get("given", {})
        same = all(_digest(flags, flag) == digest for flag, digest in given.items())
        same = same and not _command.changed(flags)  # of those that may
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # not finished, or damaged: the run itself says what is wrong
    now = _report.left(output_dir)
    differs = [name for name, checksum in left.items() if now.get(name) != checksum]
    if differs:
        are, them = ("is", "it") if len(differs) == 1 else ("are", "them")
        print(
            f"{output_dir}: {listed(differs)} {are} not as the finished run left "
            f"{them}; made again",
            file=sys.stderr,
        )
    return found if same and not differs else None
