"""Looks into trained networks: how sure, how flat, what they take for likely, what exits see."""

import os
import sys
from collections import defaultdict
from pathlib import Path

from kdtoolkit import files, report
from kdtoolkit._checks import AT_LEAST_0, ArgumentError, OneOf, Words, check
from kdtoolkit.data import describe
from kdtoolkit.recipes import _analyses, _command, _flags, _networks, _report, _session
from kdtoolkit.recipes._analyses import ANALYSES
from kdtoolkit.recipes._command import UsageError, blaming, blaming_arguments

# Of the noise itself, and of its share of each filter's norm.
_SIGMAS = ("0", "0.005", "0.01", "0.015", "0.02", "0.03", "0.04")
_SHARES = ("0", "0.05", "0.1", "0.2", "0.3", "0.4", "0.5")
_RECORDS = "analysis"  # directory of one for each analysis
_MOST_GROUPED = 20_000  # images that tell which class is of which group


def _define(flags):
    _flags.define_data(flags)
    group = "Analyses"
    flags.add(
        "list",
        group,
        "networks",
        None,
        ".keras files, and output directories of born_again (all its generations), "
        "self_distillation, distill and compress; they may be given as arguments.",
    )
    flags.take_rest("networks")
    text = f"Analyses to make, of {', '.join(ANALYSES)}, separated by commas (default: all)."
    flags.add("list", group, "only", None, text)
    flags.may_change("only")
    text = "Most images of each split that an analysis looks at, from all over the split."
    flags.add("integer", group, "images", 1000, text)
    flags.add(
        "string",
        group,
        "group_label",
        None,
        "Label that says which classes are alike, for second_choices: for cifar100 coarse_label.",
    )
    flags.add(
        "string",
        group,
        "transfer_dataset",
        None,
        "Data set, as --dataset, on whose images a linear classifier takes the networks' features.",
    )
    flags.add(
        "list",
        group,
        "sigmas",
        None,
        f"Strengths of the noise of flatness, separated by commas (default: {','.join(_SIGMAS)}; "
        f"with --filter_normalized {','.join(_SHARES)}).",
    )
    flags.add(
        "boolean",
        group,
        "filter_normalized",
        False,
        "Noise of flatness relative to each filter's norm, and none on vectors.",
    )
    flags.add("integer", group, "seed", 0, "Of noise and batches.")
    _flags.define_output_dir(flags)
    flags.settle(
        strategy="one_device",
        precision="float32",
        xla="false",
        deterministic="auto",
        onednn="auto",
        steps_per_execution=1,
        smoke=False,
    )


def _check(flags):
    info = _flags.check_data(flags)
    accepted = "given: .keras files or output directories, as --networks or as arguments"
    flags.require("networks", bool(flags.networks), accepted)
    flags.networks = [os.path.expanduser(path) for path in flags.networks]
    found = _networks.find(flags.networks, "--networks")
    with blaming_arguments(flags):
        for name in flags.only or ():
            check("only", name, OneOf(tuple(ANALYSES)))
    flags.require("images", flags.images > 0, "positive")
    flags.require("seed", 0 <= flags.seed < 2**31, "from 0 to 2147483647")
    if flags.group_label is not None:
        with blaming("group_label"), blaming_arguments(flags, label="group_label"):
            describe(flags.dataset, flags.data_dir, flags.image_size, flags.group_label)
        own = info.test_split is not None
        flags.require("group_label", own, "left out where a data set has no test split")
    if flags.transfer_dataset is not None:
        flags.transfer_dataset = os.path.expanduser(flags.transfer_dataset)
        with blaming("transfer_dataset"), blaming_arguments(flags, name="transfer_dataset"):
            describe(flags.transfer_dataset, flags.data_dir, flags.image_size)
    _check_sigmas(flags)
    names = (Path(path).resolve().name.removesuffix(".keras") for path in flags.networks)
    _flags.default_output_dir(flags, RECIPE.name, *names, flags.seed)
    return found


def _check_sigmas(flags):
    if flags.sigmas is None:
        flags.sigmas = list(_SHARES if flags.filter_normalized else _SIGMAS)
    try:
        right = bool(flags.sigmas) and all(float(sigma) in AT_LEAST_0 for sigma in flags.sigmas)
    except ValueError:
        right = False
    flags.require("sigmas", right, "numbers of at least 0, separated by commas")


def _run(flags, found):
    data = _session.load(flags)
    looked = _look(flags, data, found)
    output_dir = _command.claim_output_dir(flags)
    print(_report.data_line(_report.data_facts(data)), file=sys.stderr)
    key = _key(looked)
    results = {}
    for name in flags.only or ANALYSES:
        with _session.one_line_errors(data):
            results[name] = _complete(name, looked, key, output_dir / _RECORDS)
    parts = {
        "given": {
            "networks": {network.name: network.sha256 for network in found},
            **_session.given_data(data.info),
        },
        "images": flags.images,
        "analyses": {
            name: {
                "networks": {
                    network: _analyses.plain(ANALYSES[name].row(numbers))
                    for network, numbers in result["networks"].items()
                },
                "left_out": result["left_out"],
            }
            for name, result in results.items()
        },
    }
    return _session.finish(RECIPE.name, flags, output_dir, data, parts)


def _look(flags, data, found):
    """What all analyses share: networks, images, groups."""
    from kdtoolkit.data import Split, beside

    pixels = {
        name: getattr(data, name).spread(flags.images) for name in ("train", "validation", "test")
    }
    subjects = {}
    for network in found:
        with blaming("networks"):
            known = beside.read(network.path)
            preprocessing = data.preprocessing if known is None else known[0]
            whole, classifier = _loaded(network, data.info, preprocessing, known is None)
        splits = {name: Split(*arrays, preprocessing) for name, arrays in pixels.items()}
        subjects[network.name] = _analyses.Subject(network, whole, classifier, splits)
    return _analyses.Looked(
        subjects,
        flags.seed,
        _groups(flags, data),
        _other(flags, data),
        [float(sigma) for sigma in flags.sigmas],
        flags.filter_normalized,
    )


def _loaded(found, info, preprocessing, scaled):
    """A network, and what of it returns logits; `scaled`: it may take other pixel values."""
    from kdtoolkit import models
    from kdtoolkit.models import input_range, saved

    network = saved.load_network(found.path)
    if isinstance(network.output, dict):
        classifier = models.cut(network, models.exit_names(network)[-1])
    else:
        given = found.given_as is not None
        network = saved.load_classifier(found.path, info.image_shape, info.classes, resize=given)
        pixels = found.given_as
        if pixels in (None, "auto"):
            pixels = (scaled and input_range.implied(network)) or "normalized"
        network = classifier = saved.from_input_range(network, preprocessing, pixels)
    takes, returns = classifier.input_shape[1:], classifier.output_shape[-1]
    if (tuple(takes), returns) != (tuple(info.image_shape), info.classes):
        raise ArgumentError(
            "networks",
            f"for images of {info.image_shape} in {info.classes} classes",
            Words(f"{found.path}, for {takes} in {returns}"),
        )
    return network, classifier


def _groups(flags, data):
    """The group of each class; of test images, which both labels leave in their order."""
    import numpy as np

    from kdtoolkit import analysis

    if flags.group_label is None:
        return None
    other = _session.labelled(flags, flags.group_label)
    (images, labels), (same, groups) = (x.test.spread(_MOST_GROUPED) for x in (data, other))
    if not np.array_equal(images, same):
        raise UsageError(f"--group_label={flags.group_label}: its images come in another order")
    with blaming("group_label"):
        return analysis.groups_of(labels, groups, data.info.classes)


def _other(flags, data):
    """Training and test images of the data set of transfer, as large as the networks' own."""
    from kdtoolkit.data import Split, load

    if flags.transfer_dataset is None:
        return None
    height, width, channels = data.info.image_shape
    with blaming("transfer_dataset"), blaming_arguments(flags, name="transfer_dataset"):
        other = load(flags.transfer_dataset, flags.data_dir, image_size=(height, width))
    fits = other.info.image_shape[-1] == channels
    flags.require("transfer_dataset", fits, f"of images of {channels} channels")
    return tuple(
        Split(*split.spread(flags.images), other.preprocessing)
        for split in (other.train, other.test)
    )


def _key(looked):
    """What the numbers of every analysis depend on."""
    subjects = looked.subjects.values()
    return _analyses.plain(
        {
            "networks": {subject.found.name: subject.found.sha256 for subject in subjects},
            "images": {
                name: split.fingerprint() for name, split in next(iter(subjects)).splits.items()
            },
            "seed": looked.seed,
            "groups": looked.groups,
            "transfer": [split.fingerprint() for split in looked.other or ()],
            "sigmas": looked.sigmas,
            "filter_normalized": looked.normalized,
        }
    )


def _complete(name, looked, key, directory):
    """The numbers of an analysis, from its record where there is one, else made and recorded."""
    path = directory / f"{name}.json"
    try:
        known = files.read_record(path)
        if known.pop("key") == key:
            return known
    except (OSError, ValueError, KeyError) as error:
        if path.exists() and files.is_damage(error):
            files.set_aside(path)
    print(f"{name} of {_counted(looked.subjects)}", file=sys.stderr)
    numbers = _analyses.numbers(ANALYSES[name], looked)
    files.make_directory(directory)
    files.write_record(path, {**numbers, "key": key})
    return numbers


def _tables(results):
    """Pairs of an analysis' name and its rows, networks that have none left out."""
    for name, result in results["analyses"].items():
        yield name, [{"network": network, **row} for network, row in result["networks"].items()]


def _left_out(results):
    """Lines that say which networks an analysis left out, and why."""
    for name, result in results["analyses"].items():
        reasons = defaultdict(list)
        for network, why in result["left_out"].items():
            reasons[why].append(network)
        for why, networks in reasons.items():
            yield f"{name} leaves out {', '.join(networks)}: {why}"


def _show(flags, results):
    lines = [
        f"\n{_counted(results['given']['networks'])} on {flags.dataset}: at most "
        f"{flags.images:,} images of each split\n"
    ]
    for name, rows in _tables(results):
        if rows:
            columns = {"network": (name, ""), **ANALYSES[name].columns}
            lines += [_report.table(rows, columns), ""]
    lines += _left_out(results)
    lines.append(_report.ending([], "path", flags.output_dir, _FIGURES))
    return "\n".join(lines)


def _counted(networks):
    return f"{len(networks)} network{'s' * (len(networks) != 1)}"


def _page(flags, results, directory):
    sections = []
    for name, rows in _tables(results):
        if rows:
            analysis = ANALYSES[name]
            numbers = files.read_record(directory / _RECORDS / f"{name}.json")["networks"]
            columns = {"network": ("network", ""), **analysis.columns}
            sections.append(
                report.Section(
                    name.replace("_", " "),
                    [
                        analysis.says,
                        report.Table.of(rows, columns),
                        *(
                            report.Picture(figure, title)
                            for title, figure in analysis.pictures(numbers).items()
                        ),
                    ],
                )
            )
    left_out = list(_left_out(results))
    if left_out:
        sections.append(report.Section("left out", left_out))
    return f"{_counted(results['given']['networks'])} on {flags['dataset']}", sections


_FIGURES = "report.html shows it, analysis/NAME.json holds the numbers."
RECIPE = _command.Recipe(
    name="analyze",
    summary=__doc__.strip(),
    define=_define,
    check=_check,
    run=_run,
    show=_show,
    page=_page,
)

if __name__ == "__main__":
    sys.exit(RECIPE.main())
