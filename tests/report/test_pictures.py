import io

import numpy as np
from PIL import Image

from kdtoolkit import report
from kdtoolkit.report import pictures


def test_curve_is_drawn(tmp_path):
    """The marked point lies far from the curve: its colour appears where it should."""
    path = tmp_path / "curve.png"
    report.plot_accuracy_against_cost(
        {"test": [(0.2, 0.5), (1.0, 0.5)]}, path, marked={"point": (0.6, 0.9)}
    )
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert pixels.shape == (600, 900, 3)
    orange = np.abs(pixels - [255, 127, 14]).sum(-1) < 30  # second colour of the default cycle
    rows, columns = np.nonzero(orange[:, 100:700])
    assert len(rows) > 20
    assert np.median(rows) < 150  # 0.9 is at the top
    assert abs(np.median(columns) + 100 - 480) < 60  # 0.6 is in the middle


def test_points_without_a_curve(tmp_path):
    """Where no thresholds are worth it, what is better is drawn, each in a colour of its own."""
    path = tmp_path / "curve.png"
    marked = {"plain": (1.0, 0.9), "exit_1 alone": (0.5, 0.6), "exit_2 alone": (0.75, 0.75)}
    report.plot_accuracy_against_cost({}, path, marked=marked)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rightmost, area = [], []
    for colour in ([31, 119, 180], [44, 160, 44], [255, 127, 14]):
        drawn = np.abs(pixels - colour).sum(-1) < 30
        area.append(drawn.sum())
        rightmost.append(np.nonzero(drawn)[1].max())
    assert min(area) > 40  # in the legend, which is on the left, and in its place
    assert rightmost[0] > rightmost[1] + 200 and rightmost[1] > rightmost[2] + 200


def test_one_epoch_does_not_hide_the_others():
    colors = {"a": "C0", "b": "C1"}
    calm = pictures.over_epochs([("a", [2.0, 1.0, 0.9])], [("a", [3.0, 1.5, 1.2])], "loss", colors)
    wild = pictures.over_epochs(
        [("a", [2.0, 1.0, 0.9])], [("b", [900.0, 1.5, 1.2])], "loss", colors
    )
    assert [figure.axes[0].get_yscale() for figure in (calm, wild)] == ["linear", "log"]
    lines = wild.axes[0].get_lines()[:2]
    assert [line.get_color() for line in lines] == ["C0", "C1"]
    assert [list(line.get_ydata()) for line in lines] == [[2.0, 1.0, 0.9], [900.0, 1.5, 1.2]]
    legends = [figure.axes[0].get_legend() for figure in (calm, wild)]
    assert legends[0] is None
    assert [text.get_text() for text in legends[1].get_texts()] == ["a", "b"]


def test_epochs_that_are_not_known_are_left_free():
    """The others stand where they were; one alone is a point."""
    lines = [("a", [None, 2.0, 1.0]), ("a", [None, None, 3.0]), ("a", [None]), ("a", [4.0])]
    (axes,) = pictures.over_epochs(lines, lines[-1:], "loss", {"a": "C0"}).axes
    drawn = [line.get_xydata()[~np.isnan(line.get_ydata())].tolist() for line in axes.get_lines()]
    assert drawn == [[[2, 2], [3, 1]], [[3, 3]], [], [[1, 4]], [[1, 4]]]
    assert [line.get_marker() for line in axes.get_lines()] == ["None", ".", "None", ".", "x"]


def test_one_epoch_has_its_number_and_labels_are_whole():
    one = [("a", [0.0825]), ("a", [0.0675])]
    for figure in (
        pictures.over_epochs(one, [], "accuracy", {"a": "C0"}),
        pictures.by_generation({"a": [0.5]}, "accuracy"),
    ):
        figure.savefig(io.BytesIO())
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
        assert [tick % 1 for tick in ticks] == [0]
        assert axes.yaxis.label.get_window_extent().x0 >= 0


def test_points_at_one_place_share_a_name():
    rows = [{"variant": name, "test_accuracy": 0.5, "bytes": 7} for name in ("a", "b")]
    rows.append({"variant": "c", "test_accuracy": 0.6, "bytes": 9, "failure": "wrong"})
    (axes,) = pictures.front(rows, "bytes", "bytes").axes
    assert [text.get_text() for text in axes.texts] == ["a; b", "c"]
    assert [line.get_marker() for line in axes.get_lines()] == ["o", "o", "x"]


def test_seeds_means_and_intervals_are_where_they_should_be():
    rows = [("one", [0.1, 0.3], (0.05, 0.35)), ("other", [0.5], None)]
    (axes,) = pictures.seeds(rows, "accuracy").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "other"]
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
    interval, points, mean, alone, itself = drawn
    assert interval == ([5.0, 35.0], [0, 0])
    assert (points, mean) == (([10.0, 30.0], [0, 0]), ([20.0], [0]))
    assert (alone, itself) == (([50.0], [1]), ([50.0], [1]))
