import numpy as np
import pytest

from kdtoolkit.data import Augmentation, Views, epoch_plan


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_plan_is_pure_and_each_key_matters():
    plan = epoch_plan(500, seed=1, generation=2, epoch=3)
    assert same(plan, epoch_plan(500, seed=1, generation=2, epoch=3))
    for key in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (3, 2, 1), (1, 2, 0), (1, 0, 0)):
        other = epoch_plan(500, *key)
        assert not any(np.array_equal(x, y) for x, y in zip(plan, other, strict=True))


def test_plan_does_not_change_with_versions():
    plan = epoch_plan(5, seed=0, generation=0, epoch=0)
    # From Philox 4x64-10's raw words under SeedSequence(0, spawn_key=(0, 0, 0)).
    key = np.random.SeedSequence(0, spawn_key=(0, 0, 0))
    words = [int(word) for word in np.random.Philox(key).random_raw(20)]
    assert plan.order.tolist() == sorted(range(5), key=lambda i: words[4 * i])
    assert plan.offsets.tolist() == [[words[4 * i + 1] % 9, words[4 * i + 2] % 9] for i in range(5)]
    assert plan.flips.tolist() == [words[4 * i + 3] >= 2**63 for i in range(5)]


def test_crops_and_flips_belong_to_the_index():
    few, many = epoch_plan(10, 0, 0, 7), epoch_plan(1000, 0, 0, 7)
    np.testing.assert_array_equal(few.offsets, many.offsets[:10])
    np.testing.assert_array_equal(few.flips, many.flips[:10])


def test_order_is_a_permutation():
    np.testing.assert_array_equal(np.sort(epoch_plan(1000, 0, 0, 0).order), np.arange(1000))


def test_crops_are_uniform_and_half_are_flipped():
    plan = epoch_plan(81_000, seed=0, generation=0, epoch=0)
    counts = np.bincount(plan.offsets[:, 0] * 9 + plan.offsets[:, 1], minlength=81)
    assert counts.size == 81
    # Chi-square with 80 degrees of freedom: 124.84 is exceeded once in a thousand.
    assert np.sum((counts - 1000) ** 2 / 1000) < 124.84
    # Four standard deviations of a binomial: 4 sqrt(81000) / 2.
    assert abs(plan.flips.sum() - 40_500) < 4 * 81_000**0.5 / 2
    # Independent of each other and of the position in the epoch.
    place = np.argsort(plan.order)
    table = np.corrcoef([plan.offsets[:, 0], plan.offsets[:, 1], plan.flips, place])
    assert np.abs(table - np.eye(4)).max() < 4 / 81_000**0.5


def test_without_flip_and_pad():
    plan = epoch_plan(1000, 0, 0, 0, Augmentation(pad=0, flip=False))
    assert not plan.flips.any()
    assert not plan.offsets.any()


def test_views_repeat_and_the_order_does_not():
    fresh = [epoch_plan(50, 3, 2, epoch) for epoch in range(7)]
    shown = [
        epoch_plan(50, 3, 2, epoch, views=Views(3, seed=5, generation=1)) for epoch in range(7)
    ]
    for epoch, plan in enumerate(shown):
        np.testing.assert_array_equal(plan.order, fresh[epoch].order)
        view = epoch_plan(50, 5, 1, epoch % 3)
        np.testing.assert_array_equal(plan.offsets, view.offsets)
        np.testing.assert_array_equal(plan.flips, view.flips)


def test_as_many_views_as_epochs_are_the_run_without_views():
    for epoch in range(3):
        assert same(epoch_plan(50, 3, 2, epoch), epoch_plan(50, 3, 2, epoch, views=Views(3, 3, 2)))


@pytest.mark.parametrize("pad", [-1, 0.5, True])
def test_pad_is_checked(pad):
    with pytest.raises(ValueError, match=f"`pad` must be an integer of .* 0. Received: pad={pad}"):
        Augmentation(pad=pad)


@pytest.mark.parametrize("change", [{"count": 0}, {"seed": -1}, {"generation": -1}])
def test_views_are_checked(change):
    ((name, value),) = change.items()
    with pytest.raises(ValueError, match=f"`{name}` must be .* integer.* Received: {name}={value}"):
        Views(**{"count": 2, **change})
