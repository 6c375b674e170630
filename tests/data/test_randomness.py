import numpy as np

from kdtoolkit.data.randomness import Purpose, random_fractions, stratified

# Classes of 50, 30 and 15 samples, mixed.
LABELS = np.random.default_rng(0).permutation(np.repeat([4, 0, 9], [50, 30, 15]))


def test_fractions_are_two_of_each_word():
    key = np.random.SeedSequence(5, spawn_key=(Purpose.TEST, 6, 7))
    words = [int(word) for word in np.random.Philox(key).random_raw(8)]
    halves = [half for word in words for half in (word >> 32, word & 0xFFFFFFFF)]
    # Three columns of four rows: of the second word of each row, the first half alone.
    expected = [[half // 256 / 2**24 for half in halves[4 * i : 4 * i + 3]] for i in range(4)]
    fractions = random_fractions(4, 3, Purpose.TEST, 5, 6, 7)
    assert fractions.dtype == np.float32
    np.testing.assert_array_equal(fractions, expected)


def test_each_class_in_proportion():
    chosen = stratified(LABELS, 19, Purpose.TEST)  # a fifth: 10, 6 and 3
    assert [np.sum(LABELS[chosen] == c) for c in (4, 0, 9)] == [10, 6, 3]


def test_left_over_places_go_to_the_largest_remainders():
    chosen = stratified(LABELS, 10, Purpose.TEST)  # 5.26, 3.16 and 1.58
    assert [np.sum(LABELS[chosen] == c) for c in (4, 0, 9)] == [5, 3, 2]


def test_any_count_exactly():
    for count in range(len(LABELS) + 1):
        chosen = stratified(LABELS, count, Purpose.TEST)
        assert len(chosen) == len(np.unique(chosen)) == count
        assert np.all(np.diff(chosen) > 0)


def test_purposes_choose_apart():
    first = stratified(LABELS, 19, Purpose.TEST)
    np.testing.assert_array_equal(first, stratified(LABELS, 19, Purpose.TEST))
    assert not np.array_equal(first, stratified(LABELS, 19, Purpose.VALIDATION))
