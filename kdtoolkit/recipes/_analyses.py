"""What `analyze` looks at, and each of its analyses: its numbers of one network, and their picture.

Names alone are known without TensorFlow.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdtoolkit._checks import ArgumentError
from kdtoolkit.recipes._networks import Found

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kdtoolkit._types import Network
    from kdtoolkit.data import Split

_BATCH = 128  # images of a gradient
_DRAWN_CLASSES = 10  # of features in two dimensions: as many as there are colours


class LeftOut(Exception):
    """An analysis does not apply to a network; the message says why."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A network that is looked at.

    Attributes:
        found: where it is.
        network: as it is.
        classifier: what returns logits alone; of a multi-exit network its deepest exit.
        splits: name of a split -> its images, normalised as the network takes them.
    """

    found: Found
    network: "Network"
    classifier: "Network"
    splits: "Mapping[str, Split]"

    @property
    def has_exits(self) -> bool:
        return self.network is not self.classifier

    @functools.cached_property
    def _outputs(self):
        from kdtoolkit.training import evaluation

        return {
            name: evaluation.predict(self.network, split)
            for name, split in self.splits.items()
            if len(split)
        }

    def logits(self, split: str) -> np.ndarray:
        """Of the classifier, `(n, classes)`."""
        return list(self.by_exit(split).values())[-1]

    def by_exit(self, split: str) -> dict[str, np.ndarray]:
        """Of every exit, shallow to deep; the only one of a network without exits is `""`."""
        from kdtoolkit import models

        outputs, _ = self._outputs[split]
        if not self.has_exits:
            return {"": outputs}
        return {name: outputs[name] for name in models.exit_names(self.network)}

    def labels(self, split: str) -> np.ndarray:
        return self.splits[split].labels


@dataclasses.dataclass(frozen=True)
class Looked:
    """What all analyses of a run share.

    Attributes:
        subjects: by name.
        seed: of what is drawn.
        groups: the group of each class, or None.
        other: training and test split of another data set, unnormalised, or None.
        sigmas, normalized: of `analysis.under_noise`.
    """

    subjects: Mapping[str, Subject]
    seed: int
    groups: np.ndarray | None
    other: "tuple[Split, Split] | None"
    sigmas: Sequence[float]
    normalized: bool


@dataclasses.dataclass(frozen=True)
class Analysis:
    """One of them.

    Attributes:
        says: what it looks at, a sentence.
        numbers: of a subject, what JSON can hold; raises `LeftOut`.
        pictures: numbers by network -> figures by title.
        columns: key -> (heading, format) of the figures of a network in the table.
        row: numbers of a network -> those figures.
    """

    says: str
    numbers: Callable[[Looked, Subject], dict]
    pictures: "Callable[[Mapping[str, dict]], dict[str, Figure]]"
    columns: Mapping[str, tuple[str, str]]
    row: Callable[[dict], dict]


def numbers(analysis: Analysis, looked: Looked) -> dict:
    """Returns the numbers of an analysis of all networks, and why some are left out, by name."""
    found, left_out = {}, {}
    for name, subject in looked.subjects.items():
        try:
            found[name] = plain(analysis.numbers(looked, subject))
        except (LeftOut, ArgumentError) as reason:
            left_out[name] = str(reason)
    return {"networks": found, "left_out": left_out}


def plain(value: Any) -> Any:
    """What JSON can hold: dataclasses as dicts, arrays as lists, what is not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _with_exits(subject):
    if not subject.has_exits:
        raise LeftOut("it has one exit")


# Each analysis: its numbers, its figures in the table, its picture.


def _energy(looked, subject):
    from kdtoolkit import analysis

    def true_score(of):
        return analysis.true_score(of.logits("train"), of.labels("train"))

    lineage, weights = [subject], []
    while lineage[0].found.weight is not None and lineage[0].found.teacher is not None:
        weights.insert(0, lineage[0].found.weight)
        lineage.insert(0, looked.subjects[lineage[0].found.teacher])
    expected = analysis.expected_true_scores(true_score(lineage[0]), weights)
    return {
        "confidences": analysis.sorted_confidences(subject.logits("train")),
        "true_score": true_score(subject),
        "lineage": [each.found.name for each in lineage],
        "expected": expected,
    }


def _energy_pictures(found):
    from kdtoolkit.analysis import pictures

    drawn = {
        "scores by rank": pictures.energy(
            {name: np.array(x["confidences"]) for name, x in found.items()}
        )
    }
    taught = {name for x in found.values() for name in x["lineage"][:-1]}
    last = {name: x for name, x in found.items() if len(x["lineage"]) > 1 and name not in taught}
    if last:
        measured = {
            name: [found[each]["true_score"] for each in x["lineage"]] for name, x in last.items()
        }
        expected = {name: x["expected"] for name, x in last.items()}
        drawn["score of the true class by generation"] = pictures.generations(measured, expected)
    return drawn


def _energy_row(x):
    expected = x["expected"][-1] if len(x["expected"]) > 1 else None
    return {"true_score": x["true_score"], "expected_true_score": expected}


def _second_choices(looked, subject):
    from kdtoolkit import analysis

    counts = analysis.count_second_choices(subject.logits("train"), subject.labels("train"))
    groups = np.arange(len(counts)) if looked.groups is None else looked.groups
    within = analysis.within_groups(counts, groups)
    return {"counts": counts, "groups": looked.groups, "within": within}


def _second_choices_pictures(found):
    from kdtoolkit.analysis import pictures

    groups = next(iter(found.values()))["groups"]
    counts = {name: np.array(x["counts"]) for name, x in found.items()}
    groups = None if groups is None else np.array(groups)
    return {"second choices": pictures.second_choices(counts, groups)}


def _second_choices_row(x):
    within = x["within"]
    grouped = within if x["groups"] is not None else {}
    return {
        "in_group": grouped.get("share"),
        "by_chance": grouped.get("chance"),
        "alike": within["concentration"],
    }


def _flatness(looked, subject):
    from kdtoolkit import analysis

    images, labels = subject.splits["train"].pixels()
    noisy = analysis.under_noise(
        subject.classifier,
        subject.splits["train"].preprocessing(images),
        labels,
        looked.sigmas,
        seed=looked.seed,
        normalized=looked.normalized,
    )
    return {"noisy": noisy, "normalized": looked.normalized}


def _flatness_pictures(found):
    from kdtoolkit.analysis import Noisy, pictures

    noisy = {name: [Noisy(**row) for row in x["noisy"]] for name, x in found.items()}
    normalized = next(iter(found.values()))["normalized"]
    return {"noise on the weights": pictures.flatness(noisy, normalized)}


def _flatness_row(x):
    """Of the strength in the middle: at the first nothing happens, at the last little is left."""
    middle = x["noisy"][len(x["noisy"]) // 2]
    return {"sigma": middle["sigma"], "noisy_accuracy": float(np.mean(middle["accuracies"]))}


def _gradients(looked, subject):
    from kdtoolkit import analysis

    _with_exits(subject)
    images, labels = subject.splits["train"].pixels()
    images = subject.splits["train"].preprocessing(images)
    order = np.random.default_rng(looked.seed).permutation(len(images))  # folders are sorted
    whole = max(len(images) // _BATCH, 1)
    batches = [
        (images[part], labels[part])
        for part in (order[_BATCH * k : _BATCH * (k + 1)] for k in range(whole))
    ]
    return {"gradients": analysis.distillation_gradients(subject.network, batches)}


def _gradients_pictures(found):
    from kdtoolkit.analysis import pictures

    return {name: pictures.gradients(x["gradients"]) for name, x in found.items()}


def _gradients_row(x):
    """Of the convolutions that the deepest exit's loss reaches: the backbone's."""
    alone, all_terms = (x["gradients"][kind] for kind in ("deepest exit", "self-distillation"))
    ratios = [all_terms[name] / value for name, value in alone.items() if value > 0]
    return {"gradient_ratio": float(np.exp(np.mean(np.log(ratios))))}


def _exit_features(looked, subject):
    from kdtoolkit import analysis

    _with_exits(subject)
    features = analysis.features_by_exit(subject.network, subject.splits["test"])
    labels = subject.labels("test")
    drawn = np.isin(labels, np.unique(labels)[:_DRAWN_CLASSES])
    planes = {name: analysis.principal_components(x) for name, x in features.items()}
    return {
        "ratios": {name: analysis.scatter_ratio(x, labels) for name, x in features.items()},
        "variances": {name: plane.variance for name, plane in planes.items()},
        "points": {name: plane.points[drawn] for name, plane in planes.items()},
        "labels": labels[drawn],
    }


def _exit_features_pictures(found):
    from kdtoolkit.analysis import Projection, pictures

    drawn = {}
    for name, x in found.items():
        planes = {
            exit: Projection(np.array(points), tuple(x["variances"][exit]))
            for exit, points in x["points"].items()
        }
        picture = pictures.exit_features(planes, np.array(x["labels"]), x["ratios"])
        drawn[name] = picture
    return drawn


def _exit_features_row(x):
    first, *_, last = x["ratios"].values()
    return {"first_scatter": first, "last_scatter": last}


def _transfer(looked, subject):
    from kdtoolkit import analysis
    from kdtoolkit.data import Split

    if looked.other is None:
        raise LeftOut("--transfer_dataset names no data set")
    preprocessing = subject.splits["train"].preprocessing
    parts = []
    for split in looked.other:
        normalised = Split(split.images, split.labels, preprocessing)
        parts += [analysis.pooled_features(subject.classifier, normalised), split.labels]
    return {"accuracy": analysis.linear_probe(*parts)}


def _transfer_pictures(found):
    from kdtoolkit.analysis import pictures

    return {"linear probe": pictures.transfer({name: x["accuracy"] for name, x in found.items()})}


def _calibration(looked, subject):
    from kdtoolkit import analysis

    if not len(subject.splits["validation"]):
        raise LeftOut("there are no validation images")
    return dataclasses.asdict(
        analysis.temperature_scaling(
            *(subject.logits("test"), subject.labels("test")),
            *(subject.logits("validation"), subject.labels("validation")),
        )
    )


def _calibration_pictures(found):
    from kdtoolkit.analysis import Calibration, Reliability, pictures

    made = {
        name: Calibration(x["temperature"], Reliability(**x["before"]), Reliability(**x["after"]))
        for name, x in found.items()
    }
    return {"reliability": pictures.reliability(made)}


def _calibration_row(x):
    errors = {f"error_{when}": x[when]["error"] for when in ("before", "after")}
    return {**errors, "temperature": x["temperature"]}


def _agreement(looked, subject):
    from kdtoolkit import analysis

    own, pairs = subject.by_exit("test"), {}
    deepest = subject.logits("test")
    if subject.has_exits:
        pairs = {f" {name}": (deepest, z) for name, z in list(own.items())[:-1]}
    teacher = looked.subjects.get(subject.found.teacher or "")
    if teacher is not None:
        pairs[""] = (teacher.logits("test"), deepest)
    if not pairs:
        raise LeftOut("none of the networks taught it")
    return {"pairs": {end: analysis.teacher_agreement(*pair) for end, pair in pairs.items()}}


def _agreement_pictures(found):
    from kdtoolkit.analysis import Agreement, pictures

    pairs = {
        f"{name}{end}": Agreement(**pair)
        for name, x in found.items()
        for end, pair in x["pairs"].items()
    }
    return {"student and teacher": pictures.agreement(pairs)}


def _agreement_row(x):
    pair = x["pairs"].get("") or list(x["pairs"].values())[-1]
    return {"agreement": pair["share"], "divergence": pair["divergence"]}


ANALYSES = {
    "energy": Analysis(
        "How sure the networks are of training images: mean of the largest score, of the "
        "second largest, and so on (Yang et al., AAAI 2019). Closed form: 1 - f_g = lambda^g "
        "(1 - f_0).",
        _energy,
        _energy_pictures,
        {
            "true_score": ("true class", ".3f"),
            "expected_true_score": ("closed form", ".3f"),
        },
        _energy_row,
    ),
    "second_choices": Analysis(
        "Which class of training images has the second highest score, as a share of each true "
        "class (Yang et al., Figure 1). In the table also how often two images of one class "
        "have the same.",
        _second_choices,
        _second_choices_pictures,
        {
            "in_group": ("second in group", ".1%"),
            "by_chance": ("by chance", ".1%"),
            "alike": ("same second", ".1%"),
        },
        _second_choices_row,
    ),
    "flatness": Analysis(
        "Accuracy and loss of training images with Gaussian noise on the weights (Zhang et "
        "al., ICCV 2019, Figure 4): means of three draws, and their range.",
        _flatness,
        _flatness_pictures,
        {"sigma": ("noise", ".3g"), "noisy_accuracy": ("accuracy with it", ".1%")},
        _flatness_row,
    ),
    "gradients": Analysis(
        "Mean absolute gradient of each convolution on training images: of the deepest exit's "
        "cross-entropy alone, of that of all exits, and of all terms of self-distillation at "
        "their usual weights (Zhang et al., Figure 5). In the table: all terms over the deepest "
        "exit alone, geometric mean over the backbone.",
        _gradients,
        _gradients_pictures,
        {"gradient_ratio": ("gradient, times", ".2f")},
        _gradients_row,
    ),
    "exit_features": Analysis(
        "Features of each exit of test images, the first ten classes in two dimensions (Zhang "
        "et al., Figure 6); scatter of all classes, within over between.",
        _exit_features,
        _exit_features_pictures,
        {
            "first_scatter": ("scatter, first exit", ".2f"),
            "last_scatter": ("deepest", ".2f"),
        },
        _exit_features_row,
    ),
    "transfer": Analysis(
        "Test accuracy of a logistic regression on the networks' features of another data set.",
        _transfer,
        _transfer_pictures,
        {"accuracy": ("transfer", ".2%")},
        lambda x: x,
    ),
    "calibration": Analysis(
        "How often the networks are right of test images, against how sure they are, before "
        "and after a temperature fitted on validation images.",
        _calibration,
        _calibration_pictures,
        {
            "error_before": ("calibration error", ".3f"),
            "error_after": ("with temperature", ".3f"),
            "temperature": ("temperature", ".2f"),
        },
        _calibration_row,
    ),
    "agreement": Analysis(
        "Test images on which a student and its teacher decide alike, and the mean KL "
        "divergence; of a multi-exit network the deepest exit is the teacher of the others.",
        _agreement,
        _agreement_pictures,
        {"agreement": ("as its teacher", ".1%"), "divergence": ("KL", ".3f")},
        _agreement_row,
    ),
}
"""Name -> analysis."""
