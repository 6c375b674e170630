"""What is said of the choice."""

from kdtoolkit.front.exploration import _verdict


def row(name, accuracy, size):
    return {"name": name, "validation_accuracy": accuracy, "bytes": size, "failure": None}


ROWS = [row("whole", 0.9, 2_000), row("half", 0.7, 1_000), row("quarter", 0.8, 500)]


def test_smaller_file():
    assert _verdict(ROWS, 2, "bytes", 0.1, 300) == (
        "Chosen: quarter (80.00%, 500 bytes), the least bytes of the files that are right on at "
        "most 10.00% fewer of 300 validation images than whole (90.00%, 2,000 bytes)."
    )


def test_best_that_is_smaller_is_named_where_none_keeps_the_limit():
    found = _verdict(ROWS, 0, "bytes", 0.01, 1_300)
    assert found.startswith(
        "Chosen: whole (90.00%, 2,000 bytes). No file with fewer bytes is right"
    )
    assert "1.00% fewer of 1,300 validation images" in found
    assert found.endswith("the best with fewer is quarter (80.00%, 500 bytes).")
    assert _verdict(ROWS[:1], 0, "bytes", 0.01, 300).endswith("nothing has fewer.")
