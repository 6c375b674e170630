import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context

from kdtoolkit.data import Augmentation, Augmenter, Preprocessing, Split, Views, epoch_plan, load
from kdtoolkit.data.photographs import PhotographAugmentation

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (23, 5, 7, 3), np.uint8)
LABELS = np.arange(23, dtype=np.int32)
MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])


@pytest.fixture
def split():
    return Split(IMAGES, LABELS, Preprocessing((5, 7, 3), MEAN, STD), Augmentation(pad=2))


def arrays(dataset):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset]


def test_batches_are_in_order_and_whole(split):
    dataset = split.batches(10)
    assert dataset.cardinality() == split.steps_per_epoch(10) == 3
    images, labels = zip(*arrays(dataset), strict=True)
    assert [len(batch) for batch in labels] == [10, 10, 3]
    assert (images[0].dtype, labels[0].dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(np.concatenate(labels), LABELS)
    np.testing.assert_allclose(np.concatenate(images), (IMAGES / 255 - MEAN) / STD, atol=2e-6)


def test_pixels_are_the_stored_images(split):
    images, labels = split.pixels(4)
    np.testing.assert_array_equal(images, IMAGES[:4])
    np.testing.assert_array_equal(labels, LABELS[:4])
    assert len(split.pixels()[0]) == 23


def test_spread_is_of_the_whole_split(split):
    # 23 images, whose labels are their numbers.
    for most in (1, 10, 12, 22, 23, 24):
        assert len(split.spread(most)[0]) == min(most, 23)
    images, labels = split.spread(12)
    assert set(np.diff(labels)) == {1, 2} and labels[0] == 0 and labels[-1] == 21
    np.testing.assert_array_equal(images, IMAGES[labels])


def test_augmented_pixels(split):
    """Normalise, pad with zeros, crop, mirror: by hand, in float64."""
    dataset = split.epochs(4, seed=5, generation=1, first_epoch=3, epochs=4)
    images, labels = (np.concatenate(part) for part in zip(*arrays(dataset), strict=True))
    plan = epoch_plan(23, 5, 1, 3, Augmentation(pad=2))
    np.testing.assert_array_equal(labels, plan.order)
    padded = np.pad((IMAGES / 255 - MEAN) / STD, [(0, 0), (2, 2), (2, 2), (0, 0)])
    assert plan.flips.any()
    for image, index in zip(images, plan.order, strict=True):
        top, left = plan.offsets[index]
        expected = padded[index, top : top + 5, left : left + 7]
        expected = expected[:, ::-1] if plan.flips[index] else expected
        np.testing.assert_allclose(image, expected, atol=2e-6)


def test_shuffled_but_not_augmented(split):
    dataset = split.epochs(23, seed=5, epochs=1, augment=False)
    ((images, labels),) = arrays(dataset)
    np.testing.assert_array_equal(labels, epoch_plan(23, 5, 0, 0).order)
    np.testing.assert_allclose(images, (IMAGES[labels] / 255 - MEAN) / STD, atol=2e-6)


def test_resumed_stream_is_the_tail_of_the_whole(split):
    whole = split.epochs(10, seed=1, epochs=4)
    resumed = split.epochs(10, seed=1, first_epoch=2, epochs=4)
    assert (whole.cardinality(), resumed.cardinality()) == (12, 6)
    whole, resumed = arrays(whole), arrays(resumed)
    assert [len(labels) for _, labels in whole] == [10, 10, 3] * 4
    for (images, labels), (same_images, same_labels) in zip(whole[6:], resumed, strict=True):
        assert images.tobytes() == same_images.tobytes()
        assert labels.tobytes() == same_labels.tobytes()


def test_batch_size_does_not_change_the_images(split):
    def images(batch_size):
        dataset = split.epochs(batch_size, seed=1, epochs=2)
        return np.concatenate([images for images, _ in arrays(dataset)])

    assert images(4).tobytes() == images(9).tobytes()


def test_two_replicas_share_each_batch(split, two_replicas):
    dataset = split.epochs(8, seed=1, epochs=1)
    shares = [
        two_replicas.experimental_local_results(labels)
        for _, labels in two_replicas.experimental_distribute_dataset(dataset)
    ]
    assert [[len(share) for share in pair] for pair in shares] == [[4, 4], [4, 4], [4, 3]]
    labels = np.concatenate([share for pair in shares for share in pair])
    np.testing.assert_array_equal(labels, epoch_plan(23, 1, 0, 0).order)


VIEWS = Views(3, seed=8)


def by_index(split, epoch):
    """The images of one epoch, put back into stored order: labels are indices."""
    dataset = split.epochs(10, seed=1, first_epoch=epoch, epochs=epoch + 1)
    images, labels = zip(*arrays(dataset), strict=True)
    return np.concatenate(images)[np.argsort(np.concatenate(labels))]


def test_views_repeat_while_the_order_goes_on(split):
    fixed = split.in_views(VIEWS)
    epochs = [by_index(fixed, epoch) for epoch in range(5)]
    for epoch in (0, 1):
        assert epochs[epoch].tobytes() == epochs[epoch + 3].tobytes()
        assert epochs[epoch].tobytes() != epochs[epoch + 1].tobytes()
    labels = [y for _, y in arrays(fixed.epochs(23, seed=1, epochs=4))]
    for epoch, found in enumerate(labels):
        np.testing.assert_array_equal(found, epoch_plan(23, 1, 0, epoch).order)
    assert by_index(split, 3).tobytes() != epochs[3].tobytes()  # the split itself is as it was


def test_views_in_stored_order_are_those_of_the_epochs(split):
    dataset = split.batches(10, views=VIEWS)
    assert dataset.cardinality() == 9
    batches = arrays(dataset)
    assert [len(labels) for _, labels in batches] == [10, 10, 3] * 3
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    np.testing.assert_array_equal(labels, np.tile(LABELS, 3))
    for view, shown in enumerate(np.split(images, 3)):
        assert shown.tobytes() == by_index(split.in_views(VIEWS), view).tobytes()


def test_images_are_no_constant_of_a_views_graph():
    """Which would have to be below 2 GiB, and be copied several times."""
    images = np.zeros((4000, 32, 32, 3), np.uint8)
    preprocessing = Preprocessing((32, 32, 3), (0.5,) * 3, (0.5,) * 3)
    split = Split(images, np.zeros(4000, np.int32), preprocessing)
    known = set(context.context().list_function_names())
    batches = split.batches(64, VIEWS)
    made = set(context.context().list_function_names()) - known
    sizes = [context.context().get_function_def(name).ByteSize() for name in made]
    assert sizes and max(sizes) < images.nbytes / 100
    assert batches.cardinality() == 3 * 63


def test_resumed_views_are_the_tail_of_the_whole(split):
    split = split.in_views(VIEWS)
    whole = arrays(split.epochs(10, seed=1, epochs=5))
    resumed = arrays(split.epochs(10, seed=1, first_epoch=2, epochs=5))
    for (images, labels), (same_images, same_labels) in zip(whole[6:], resumed, strict=True):
        assert images.tobytes() == same_images.tobytes()
        assert labels.tobytes() == same_labels.tobytes()


def attach(view, indices):
    return {"where": tf.stack([tf.fill(tf.shape(indices), tf.cast(view, indices.dtype)), indices])}


def test_values_come_with_their_images(split):
    dataset = split.in_views(VIEWS, attach).epochs(10, seed=1, first_epoch=1, epochs=5)
    plain = split.in_views(VIEWS).epochs(10, seed=1, first_epoch=1, epochs=5)
    batches = list(dataset.as_numpy_iterator())
    assert len(batches) == dataset.cardinality() == 12
    for step, ((x, labels), (images, _)) in enumerate(zip(batches, arrays(plain), strict=True)):
        assert x.attached.keys() == {"where"}
        assert x.images.tobytes() == images.tobytes()
        epoch = 1 + step // 3
        np.testing.assert_array_equal(
            x.attached["where"], [np.full(len(labels), epoch % 3), labels]
        )


def test_values_and_views_of_a_streamed_split(tfds_dir, monkeypatch):
    monkeypatch.setattr("kdtoolkit.data.loading.MEMORY_LIMIT", 0)
    streamed = load("grey", tfds_dir, validation_fraction=0.2).train
    images, labels = streamed.pixels()
    held = Split(images, labels, streamed.preprocessing, streamed.augmentation)
    epochs = [
        split.in_views(VIEWS, attach).epochs(16, seed=3, epochs=4) for split in (streamed, held)
    ]
    pairs = zip(*(dataset.as_numpy_iterator() for dataset in epochs), strict=True)
    for (x, labels), (same_x, same_labels) in pairs:
        assert x.images.tobytes() == same_x.images.tobytes()
        np.testing.assert_array_equal(x.attached["where"], same_x.attached["where"])
        np.testing.assert_array_equal(labels, same_labels)
    pairs = zip(streamed.batches(16, VIEWS), held.batches(16, VIEWS), strict=True)
    for (images, labels), (same_images, same_labels) in pairs:
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


@dataclasses.dataclass(frozen=True)
class Noise(Augmenter):
    """An augmentation of one's own: noise of a strength that is drawn for each image."""

    most: float = 0.5

    def plan(self, order, seed, generation, epoch):
        rng = np.random.default_rng((seed, generation, epoch))
        return order, rng.uniform(0, self.most, len(order)).astype(np.float32)

    def apply(self, images, draws, preprocessing):
        (strengths,) = draws
        return preprocessing(images) + strengths[:, None, None, None]


@pytest.mark.parametrize("on_device", [False, True])
def test_an_augmentation_of_ones_own(split, on_device):
    split = Split(IMAGES, LABELS, split.preprocessing, Noise(2.0))
    dataset = split.epochs(10, seed=1, first_epoch=1, epochs=2, on_device=on_device)
    read = split.reader() if on_device else lambda x: x
    images, labels = (
        np.concatenate(part) for part in zip(*((read(x), y) for x, y in dataset), strict=True)
    )
    strengths = np.random.default_rng((1, 0, 1)).uniform(0, 2, 23)[labels, None, None, None]
    expected = (IMAGES[labels] / 255 - MEAN) / STD + strengths
    np.testing.assert_allclose(images, expected, atol=1e-5)
    other = Split(IMAGES, LABELS, split.preprocessing, Noise(1.0))
    assert split.fingerprint() != other.fingerprint()
    with pytest.raises(NotImplementedError, match="Noise cuts no boxes out"):
        split.augmentation.boxes(4, 4, ())


@pytest.mark.parametrize("compiled", [False, True])
def test_a_reader_makes_the_same_batches_on_the_device(split, compiled):
    """What is sent there are numbers about images, and no image."""
    tolerance = 1e-6 * compiled
    for chosen, options in (
        (split, {}),
        (split, {"augment": False}),
        (split.in_views(VIEWS, attach), {}),
    ):
        read = tf.function(chosen.reader(), jit_compile=compiled)
        whole = chosen.epochs(10, seed=1, first_epoch=1, epochs=3, **options)
        left = chosen.epochs(10, seed=1, first_epoch=1, epochs=3, **options, on_device=True)
        assert left.cardinality() == whole.cardinality()
        assert {spec.shape.rank for spec in tf.nest.flatten(left.element_spec)} <= {1, 2}
        for (x, labels), (expected, same) in zip(left, whole, strict=True):
            np.testing.assert_array_equal(labels, same)
            found, again = tf.nest.flatten(read(x)), tf.nest.flatten(read(expected))
            for part, other, same in zip(found, again, tf.nest.flatten(expected), strict=True):
                np.testing.assert_allclose(part, same, rtol=0, atol=tolerance)
                np.testing.assert_array_equal(other, same)


def test_images_that_cannot_be_kept_on_the_device(tfds_dir, monkeypatch):
    held = load("grey", tfds_dir).train
    assert held.bytes_for_device == held.images.size  # a byte a value
    held.augmentation = PhotographAugmentation()
    monkeypatch.setattr("kdtoolkit.data.loading.MEMORY_LIMIT", 0)
    streamed = load("grey", tfds_dir).train
    for split in (held, streamed):
        assert split.bytes_for_device is None
        with pytest.raises(ValueError, match=r"`on_device` must be False .* or augmented"):
            split.reader()
    with pytest.raises(ValueError, match=r"`on_device` must be False"):
        streamed.epochs(4, seed=0, epochs=1, on_device=True)


def test_nothing_is_tuned_while_a_pipeline_runs(tfds_dir, monkeypatch):
    # The end of an iterator would wait for who tunes: see `kdtoolkit.data.parallel`.
    held = load("grey", tfds_dir).train
    monkeypatch.setattr("kdtoolkit.data.loading.MEMORY_LIMIT", 0)
    for split in (held, load("grey", tfds_dir).train):
        for batches in (split.batches(4), split.epochs(4, seed=0, epochs=2)):
            images = batches.map(lambda x, y: x)  # as predictions take them
            assert images.options().autotune.enabled is False


def test_fingerprint_is_that_of_what_is_seen(split):
    def changed(array):
        array = array.copy()
        array.flat[-1] += 1
        return array

    preprocessing, augmentation = split.preprocessing, split.augmentation
    other = dataclasses.replace(preprocessing, mean=MEAN + 1e-12)
    splits = [
        Split(IMAGES, LABELS, preprocessing, augmentation),
        Split(changed(IMAGES), LABELS, preprocessing, augmentation),
        Split(IMAGES, changed(LABELS), preprocessing, augmentation),
        Split(IMAGES[:-1], LABELS[:-1], preprocessing, augmentation),
        Split(IMAGES, LABELS, other, augmentation),
        Split(IMAGES, LABELS, preprocessing, Augmentation(pad=2, flip=False)),
    ]
    prints = [split.fingerprint() for split in splits]
    assert prints[0] == split.fingerprint()
    assert len(set(prints)) == len(prints)


def test_fingerprint_of_a_streamed_split(tfds_dir, monkeypatch):
    monkeypatch.setattr("kdtoolkit.data.loading.MEMORY_LIMIT", 0)

    def prints(**options):
        data = load("grey", tfds_dir, **options)
        # The preprocessing of every one is the same, so that only the images tell them apart.
        for split in (data.train, data.validation, data.test):
            split.preprocessing = Preprocessing((6, 6, 1), [0], [1])
        return [split.fingerprint() for split in (data.train, data.validation, data.test)]

    found = prints(validation_fraction=0.2)
    assert found == prints(validation_fraction=0.2)
    other = prints(validation_fraction=0.3)
    assert len({*found, *other}) == 5
    assert found[2] == other[2]


def test_empty_split(split):
    empty = Split(IMAGES[:0], LABELS[:0], split.preprocessing)
    assert (len(empty), empty.steps_per_epoch(4), arrays(empty.batches(4))) == (0, 0, [])


@pytest.mark.parametrize(
    "change", [{"seed": -1}, {"generation": -1}, {"first_epoch": 3}, {"first_epoch": -1}]
)
def test_errors(split, change):
    with pytest.raises(ValueError, match=f"{next(iter(change))}={next(iter(change.values()))}"):
        split.epochs(4, **{"seed": 0, "epochs": 2, **change})
    with pytest.raises(
        ValueError, match=r"`batch_size` must be a positive integer. Received: batch_size=0"
    ):
        split.batches(0)
    with pytest.raises(ValueError, match=r"`augment` must be True.*augment=False"):
        split.in_views(VIEWS, attach).epochs(4, seed=0, epochs=1, augment=False)
