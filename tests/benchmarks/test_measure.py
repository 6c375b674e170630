"""Ratios and tables from times that are known."""

import pytest

from benchmarks import report
from benchmarks.measure import Contender, Timing, interleave, ratio, step_table

# Round by round the student takes 1.1, 1.5 and 1.2 times as long; of the medians it would be 1.0.
TIMINGS = {
    "plain": [Timing(0.100, 0.2), Timing(0.200, 0.4), Timing(0.400, 0.5)],
    "Student": [Timing(0.110, 0.3), Timing(0.300, 0.8), Timing(0.480, 0.5)],
    "Distiller": [Timing(0.220, 0.3), Timing(0.390, 0.8), Timing(0.480, 0.5)],
}


def cells(table):
    """Rows of a table of Markdown, header first, without its rule."""
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return rows[:1] + rows[2:]


def test_ratio_is_the_median_over_the_rounds():
    assert ratio(TIMINGS, "Student", "plain") == pytest.approx(1.2)


def test_step_table():
    header, plain, student, _ = step_table(
        TIMINGS, "plain", 30, {"more": dict.fromkeys(TIMINGS, "x")}
    )
    assert header[:6] == ("contender", "ms/step", "min..max", "CPU ms/step", "images/s", "/ plain")
    assert plain[1:6] == ("200.0", "100.0..400.0", "400.0", "150", "1.000")
    assert student[1:5] == ("300.0", "110.0..480.0", "500.0", "100")
    assert student[5:] == ("1.200", "1.100..1.500", "1.500", "x")


def test_short_times_keep_their_digits():
    timings = {"plain": [Timing(0.0000214, 0.00002)]}
    assert step_table(timings, "plain", 1)[1][1] == "0.021"


def test_processor_seconds_of_other_processes_take_the_place_of_ours():
    elsewhere = Contender("elsewhere", lambda: lambda steps: 3.0 * steps)
    timings = interleave([elsewhere], steps=4, rounds=2)
    assert [timing.processor for timing in timings["elsewhere"]] == [3.0, 3.0]


def test_main_table():
    table = report.steps(
        TIMINGS,
        "plain",
        30,
        memory={"plain": (400.0, 700.0), "Student": (410.0, 720.4), "Distiller": (0.0, 1.0)},
        seconds={"plain": 5.04, "Student": 6.0, "Distiller": 7.0},
    )
    header, plain, student, _ = cells(table)
    assert header[-3:] == ["peak, MiB", "of these by steps", "to first step, s"]
    assert plain[-3:] == ["700", "300", "5.0"]
    assert student[-3:] == ["720", "310", "6.0"]


def test_targets_that_are_met_missed_stated_or_not_timed():
    wanted = [
        report.Target("Student", "plain", "<=", 1.2000001),
        report.Target("Distiller", "Student", ">=", 1.31),  # 2, 1.3 and 1
        report.Target("Distiller", "plain"),  # 2.2, 1.95 and 1.2
        report.Target("PyTorch", "plain", ">=", 1),
    ]
    header, *rows = cells(report.targets(TIMINGS, wanted))
    assert header == ["ratio", "median", "min..max", "CPU", "target", ""]
    assert rows == [
        ["Student / plain", "1.200", "1.100..1.500", "1.500", "<= 1.20", "met"],
        ["Distiller / Student", "1.300", "1.000..2.000", "1.000", ">= 1.31", "not met"],
        ["Distiller / plain", "1.950", "1.200..2.200", "1.500", "", ""],
    ]


def test_document_leaves_out_empty_paragraphs():
    document = report.document("Title", "- here", {"One": ["text", "", "table"]})
    assert document == "# Title\n\n- here\n\n## One\n\ntext\n\ntable"


def test_missing():
    assert report.missing({}) == ""
    assert report.missing({"PyTorch": "not installed"}) == "- left out: PyTorch (not installed)"
