import pytest

from kdtoolkit.training.schedules import SCHEDULES


def test_cifar_resnet_is_the_papers():
    """164 epochs of 391 steps, 0.1 divided by ten after epochs 82 and 123."""
    optimizer = SCHEDULES["cifar_resnet"].optimizer(164, 391)
    rate = optimizer._learning_rate
    steps = [0, 82 * 391 - 1, 82 * 391, 123 * 391 - 1, 123 * 391]
    assert [float(rate(step)) for step in steps] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


def test_scaled_to_other_epochs():
    """A quarter of the epochs: the drops come after 20.5 and 30.75 epochs."""
    assert SCHEDULES["cifar_resnet"].drop_steps(41, 100) == (2050, 3075)
