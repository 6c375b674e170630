"""Pictures show the numbers that they are given, and need no TensorFlow."""

import subprocess
import sys

import numpy as np

from kdtoolkit.analysis import (
    Agreement,
    Calibration,
    Noisy,
    Projection,
    Reliability,
    pictures,
)
from kdtoolkit.report.svg import svg


def points(axes):
    """Label of each line -> its points."""
    return {line.get_label(): np.transpose(line.get_data()).tolist() for line in axes.lines}


def test_energy_and_generations():
    (axes,) = pictures.energy({"one": np.array([0.7, 0.2, 0.1])}).axes
    assert points(axes) == {"one": [[1, 0.7], [2, 0.2], [3, 0.1]]}
    (axes,) = pictures.generations({"one": [0.6, 0.7], "two": [0.9]}, {"one": [0.6, 0.76]}).axes
    assert points(axes) == {
        "one": [[0, 0.6], [1, 0.7]],
        "one, closed form": [[0, 0.6], [1, 0.76]],
        "two": [[0, 0.9]],
    }


def test_second_choices_stand_group_by_group():
    counts = np.array([[0, 1, 3, 0], [2, 0, 0, 2], [4, 0, 0, 0], [0, 0, 0, 0]])
    panel, *_ = pictures.second_choices({"one": counts}, np.array([1, 0, 1, 0])).axes
    shown = np.asarray(panel.images[0].get_array())
    order = [1, 3, 0, 2]
    shares = np.array([[0, 0.25, 0.75, 0], [0.5, 0, 0, 0.5], [1, 0, 0, 0], [0] * 4])
    np.testing.assert_allclose(shown, shares[np.ix_(order, order)])
    assert len(panel.lines) == 2  # a frame for each group
    many = pictures.second_choices(dict.fromkeys("abcde", counts))
    rows = {round(axes.get_position().y0, 3) for axes in many.axes[:5]}
    assert len(many.axes) == 6 and len(rows) == 2  # five and the scale, four in a row
    panel, *_ = pictures.second_choices({"one": counts}).axes
    np.testing.assert_allclose(np.asarray(panel.images[0].get_array()), shares)
    assert not panel.lines


def test_flatness_is_the_mean_of_the_draws():
    rows = [Noisy(0.0, (0.9, 0.9), (0.5, 0.5)), Noisy(0.1, (0.8, 0.4), (1.0, 2.0))]
    accuracy, loss = pictures.flatness({"one": rows}).axes
    np.testing.assert_allclose(points(accuracy)["one"], [[0, 90], [0.1, 60]])
    np.testing.assert_allclose(points(loss)["one"], [[0, 0.5], [0.1, 1.5]])
    assert "filter" in pictures.flatness({"one": rows}, normalized=True).axes[0].get_xlabel()


def test_gradients_of_zero_are_not_drawn():
    found = {"alone": {"a": 0.5, "b": 0.0}, "all": {"a": 1.0, "b": 2.0}}
    (axes,) = pictures.gradients(found).axes
    assert points(axes) == {"alone": [[0, 0.5]], "all": [[0, 1.0], [1, 2.0]]}
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_features_have_a_colour_for_each_class():
    plane = Projection(np.array([[0.0, 1], [2, 3], [4, 5]]), (0.5, 0.25))
    first, second = pictures.exit_features(
        {"exit_1": plane, "exit_2": plane}, np.array([7, 2, 7]), {"exit_1": 2.0, "exit_2": 1.5}
    ).axes
    assert [line.get_xydata().tolist() for line in first.lines] == [[[2, 3]], [[0, 1], [4, 5]]]
    assert first.get_title() == "exit_1: within / between 2.00"
    assert second.get_xlabel() == "two components, 75% of the variance"


def test_transfer_agreement_and_reliability():
    (axes,) = pictures.transfer({"one": 0.25, "two": 0.5}).axes
    np.testing.assert_allclose(axes.lines[0].get_data(), [[25, 50], [0, 1]])
    share, divergence = pictures.agreement({"pair": Agreement(0.75, 1.5)}).axes
    assert share.lines[0].get_xdata() == [75] and divergence.lines[0].get_xdata() == [1.5]
    nothing = [None, 0.5]  # as a record holds an empty bin
    before = Reliability([0, 4], nothing, [None, 1.0], 0.5)
    after = Reliability([2, 2], [0.25, 0.75], [0.25, 0.75], 0.0)
    left, right = pictures.reliability({"one": Calibration(2.0, before, after)}).axes
    assert points(left)["one, error 50.0%"] == [[0.5, 1]]
    assert points(right)["one, error 0.0%"] == [[0.25, 0.25], [0.75, 0.75]]


def test_pictures_need_no_tensorflow():
    code = (
        "import sys; from kdtoolkit.analysis import Noisy, pictures; "
        "pictures.flatness({'one': [Noisy(0.0, (1.0,), (0.0,))]}); "
        "sys.exit(bool({'tensorflow', 'keras', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_names_are_shown_as_they_are():
    """A $ begins no formula, and a backslash no command."""
    name = r"runs$1/\new$2"
    drawn = [
        pictures.energy({name: np.array([0.7, 0.3])}),
        pictures.second_choices({name: np.eye(2)}),
        pictures.transfer({name: 0.5}),
    ]
    assert all(f">{name}<" in svg(figure, "names") for figure in drawn)


def test_no_two_of_many_networks_are_drawn_alike():
    names = [f"network {number}" for number in range(25)]
    bins = Reliability(np.array([1]), np.array([0.7]), np.array([0.5]), 0.2)
    for figure in (
        pictures.energy(dict.fromkeys(names, np.array([0.7, 0.3]))),
        pictures.generations({name: [0.6, 0.7] for name in names}, {}),
        pictures.flatness({name: [Noisy(0.1, (0.5,), (1.0,))] for name in names}),
        pictures.reliability(dict.fromkeys(names, Calibration(2.0, bins, bins))),
    ):
        for axes in figure.axes:
            lines = [line for line in axes.lines if line.get_label().startswith("network")]
            assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 25
