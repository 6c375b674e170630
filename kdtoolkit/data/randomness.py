"""Random numbers as a function of their key: the same on every machine and NumPy version."""

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What numbers are drawn for: each purpose has a stream of its own."""

    EPOCH = 0
    TEST = 1
    VALIDATION = 2
    EXAMPLES = 3
    PHOTOGRAPHS = 4
    OPERATIONS = 5
    MIXING = 6


def random_words(count, columns, purpose, seed=0, generation=0, epoch=0):
    """Random bits, row `i` a function of the key and `i` alone, not of `count`.

    Raw words, because NumPy promises the bit stream of Philox for ever, and not what `Generator`
    makes of it.

    Returns:
        uint64 `(count, columns)`.
    """
    key = np.random.SeedSequence(seed, spawn_key=(purpose, generation, epoch))
    return np.random.Philox(key).random_raw(count * columns).reshape(count, columns)


def random_fractions(count, columns, purpose, seed=0, generation=0, epoch=0):
    """Uniform numbers in [0, 1), multiples of 2**-24, likewise a function of key and row.

    Returns:
        float32 `(count, columns)`.
    """
    words = random_words(count, -(-columns // 2), purpose, seed, generation, epoch)
    # Two of each word: its uppermost bits, and those that begin at the middle.
    halves = np.stack([words >> np.uint64(40), (words << np.uint64(32)) >> np.uint64(40)], axis=-1)
    fractions = halves.reshape(count, 2 * words.shape[1])[:, :columns]
    return fractions.astype(np.float32) * np.float32(2**-24)


def stratified(labels, count, purpose):
    """Chooses `count` samples at random, each class in proportion to its size.

    The places that proportions leave over go to the classes with the largest remainders. There is
    no seed: the choice is the same in every run, so what one run holds out no run trains on.

    Args:
        labels: integers `(n,)`.
        count: how many to choose, from 0 to `n`.
        purpose: a `Purpose`.

    Returns:
        The chosen indices, ascending, int64 `(count,)`.
    """
    _, members, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    shares, remainders = np.divmod(count * sizes, len(members))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1
    by_class = np.lexsort((random_words(len(members), 1, purpose)[:, 0], members))
    first_of_class = np.cumsum(sizes) - sizes
    place = np.arange(len(members)) - first_of_class[members[by_class]]
    return np.sort(by_class[place < shares[members[by_class]]])
