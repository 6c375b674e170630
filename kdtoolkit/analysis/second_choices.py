"""Which class a network takes for the second likeliest: what a student learns besides the label."""

import numpy as np

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.analysis.numbers import WithinGroups
from kdtoolkit.edge.decisions import class_indices


def count_second_choices(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts the classes with the second highest score (Figure 1 of Yang et al., AAAI 2019).

    Where the true class does not have the highest score the second highest is still what counts,
    and may be the true class: that is the diagonal. Of equal scores the first class is the higher.

    Args:
        logits: `(n, classes)`, of at least two classes.
        labels: class indices `(n,)`.

    Returns:
        int64 `(classes, classes)`: row the true class, column the second choice.
    """
    logits = np.asarray(logits)
    second = np.argsort(-logits, axis=-1, kind="stable")[:, 1]
    counts = np.zeros((logits.shape[-1],) * 2, np.int64)
    np.add.at(counts, (class_indices(labels, *logits.shape), second), 1)
    return counts


def groups_of(labels: np.ndarray, group_labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the group of every class, from images that have both labels.

    Args:
        labels: class indices `(n,)`.
        group_labels: indices of groups of the same images, `(n,)`.
        classes: how many there are.

    Returns:
        int64 `(classes,)`.

    Raises:
        ArgumentError: a class has no image, or images of two groups; or there is not one label of
            each kind for each image.
    """
    labels = class_indices(labels, len(labels), classes)
    group_labels = class_indices(group_labels, len(labels), argument="group_labels")
    groups = np.full(classes, -1, np.int64)
    groups[labels] = group_labels
    if (groups < 0).any():
        received = Words(f"none of class {int(np.argmax(groups < 0))}")
        raise ArgumentError("labels", "images of every class", received, must="have")
    apart = groups[labels] != group_labels
    if apart.any():
        received = Words(f"images of class {int(labels[apart][0])} in two")
        raise ArgumentError("group_labels", "one group for each class", received)
    return groups


def within_groups(counts: np.ndarray, groups: np.ndarray) -> WithinGroups:
    """Returns how far second choices stay in groups of similar classes, and among few classes.

    Args:
        counts: of `count_second_choices`, `(classes, classes)`.
        groups: the group of each class, `(classes,)`.

    Raises:
        ArgumentError: there is no second choice off the diagonal, or the shapes do not match.
    """
    counts, groups = np.asarray(counts), np.asarray(groups)
    classes = len(groups)
    if counts.shape != (classes, classes):
        received = Words(f"counts {counts.shape} and groups {groups.shape}")
        raise ArgumentError("groups", "one for each row of `counts`", received)
    others = counts * (1 - np.eye(classes, dtype=counts.dtype))
    rows = others.sum(axis=1)
    total = rows.sum()
    if not total:
        received = Words("none")
        raise ArgumentError("counts", "a second choice off the diagonal", received, must="have")
    same = groups[:, None] == groups[None, :]
    mates = same.sum(axis=1) - 1
    pairs = rows * (rows - 1)
    alike = (others * (others - 1)).sum(axis=1)
    several = pairs > 0
    return WithinGroups(
        share=float(others[same].sum() / total),
        chance=float((rows * mates).sum() / (total * (classes - 1))),
        concentration=float((alike[several] / pairs[several]).mean()) if several.any() else np.nan,
        diagonal=float(np.trace(counts) / counts.sum()),
    )
