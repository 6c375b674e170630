"""A teacher's stored outputs: what they are, when they are used, what training makes of them."""

import dataclasses
import json
import shutil
from collections import namedtuple
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kdtoolkit import files, methods, models
from kdtoolkit.data import Augmentation, Examples, Preprocessing, Split, Views, epoch_plan
from kdtoolkit.methods import KD
from kdtoolkit.training import Student, teacher_cache
from kdtoolkit.training.loop import Settings, Training
from kdtoolkit.training.schedules import Schedule
from tests.losses import reference

N, SIDE, CLASSES = 22, 6, 5
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (N, SIDE, SIDE, 1), np.uint8)
LABELS = RNG.integers(0, CLASSES, N).astype(np.int32)
MEAN, STD = 0.5, 0.25
VIEWS = Views(3, seed=4, generation=1)
LAYERS = ("stage2", "stage1")


def make_split(images=IMAGES, labels=LABELS, augmentation=Augmentation(pad=1)):  # noqa: B008
    preprocessing = Preprocessing((SIDE, SIDE, 1), [MEAN], [STD])
    return Split(images, labels, preprocessing, augmentation)


def network(seed, width=4, activation="tanh"):
    keras.utils.set_random_seed(seed)
    x = image = keras.Input((SIDE, SIDE, 1))
    for stage in (1, 2):
        x = keras.layers.Conv2D(stage * width, 3, activation=activation, name=f"stage{stage}")(x)
    x = keras.layers.Flatten()(x)
    return keras.Model(image, 3 * keras.layers.Dense(CLASSES)(x))


def linear(seed):
    keras.utils.set_random_seed(seed)
    image = keras.Input((SIDE, SIDE, 1))
    x = keras.layers.Flatten()(image)
    return keras.Model(image, keras.layers.Dense(CLASSES, kernel_initializer="normal")(x))


TEACHER = network(7)
SPLIT = make_split()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A directory of two caches: of logits alone, and of features too."""
    directory = tmp_path_factory.mktemp("caches")
    for layers in ((), LAYERS):
        teacher_cache.build(TEACHER, SPLIT, directory, views=VIEWS, layers=layers, batch_size=8)
    return directory


def copied(built, tmp_path, layers):
    original = teacher_cache.build(TEACHER, SPLIT, built, views=VIEWS, layers=layers)
    shutil.copytree(original.directory, tmp_path / original.directory.name)
    return teacher_cache.build(TEACHER, SPLIT, tmp_path, views=VIEWS, layers=layers)


@pytest.fixture
def cache(built, tmp_path):
    return copied(built, tmp_path, ())


@pytest.fixture
def full_cache(built, tmp_path):
    return copied(built, tmp_path, LAYERS)


def shown(view):
    """All images of a view in stored order: normalised, cropped and mirrored by hand."""
    plan = epoch_plan(N, VIEWS.seed, VIEWS.generation, view, Augmentation(pad=1))
    padded = np.pad((IMAGES / 255 - MEAN) / STD, [(0, 0), (1, 1), (1, 1), (0, 0)])
    images = [
        image[top : top + SIDE, left : left + SIDE][:, :: -1 if flip else 1]
        for image, (top, left), flip in zip(padded, plan.offsets, plan.flips, strict=True)
    ]
    return np.array(images, np.float32)


def layer_outputs(layer, images):
    return np.asarray(keras.Model(TEACHER.input, TEACHER.get_layer(layer).output)(images))


def test_files_hold_the_outputs_for_every_view(full_cache):
    for view in range(VIEWS.count):
        images = shown(view)
        # A relative 2^-11 of rounding, and what float32 computes differently for batches of 8.
        np.testing.assert_allclose(
            full_cache.logits[view], TEACHER(images), rtol=2**-11 + 1e-5, atol=1e-5
        )
        for layer in LAYERS:
            expected = layer_outputs(layer, images)
            found = full_cache.features[layer][view]
            np.testing.assert_allclose(found, expected, rtol=2**-11 + 1e-5, atol=1e-5)
    assert tuple(full_cache.features) == LAYERS


def test_layers_of_a_network_within_the_teacher(tmp_path):
    """What they return where the teacher calls them: on other pixels than in their own network."""
    inner = network(9)
    image = keras.Input((SIDE, SIDE, 1))
    teacher = models.flatten(keras.Model(image, inner(keras.layers.Rescaling(0.5, 0.25)(image))))
    cache = teacher_cache.build(teacher, SPLIT, tmp_path, views=VIEWS, layers=("stage1",))
    stage1 = inner.get_layer("stage1")
    kernel, bias = map(np.asarray, (stage1.kernel, stage1.bias))
    for view in range(VIEWS.count):
        pixels = np.lib.stride_tricks.sliding_window_view(shown(view) / 2 + 0.25, (3, 3), (1, 2))
        expected = np.tanh(np.einsum("nhwcij,ijcf->nhwf", pixels, kernel) + bias)
        found = cache.features["stage1"][view]
        np.testing.assert_allclose(found, expected, rtol=2**-11, atol=1e-4)


def test_files_are_memory_mapped_and_as_large_as_their_halves(full_cache):
    # Convolutions without padding: 6 -> 4 -> 2, of 4 and 8 channels. NumPy's header is 128 bytes.
    sizes = {
        "logits.npy": 128 + 2 * 3 * 22 * 5,
        "features_1.npy": 128 + 2 * 3 * 22 * 2 * 2 * 8,
        "features_2.npy": 128 + 2 * 3 * 22 * 4 * 4 * 4,
    }
    for name, size in sizes.items():
        assert (full_cache.directory / name).stat().st_size == size, name
    assert {path.name for path in full_cache.directory.iterdir()} == {*sizes, "cache.json"}
    for array in (full_cache.logits, *full_cache.features.values()):
        assert isinstance(array, np.memmap)
        assert (array.dtype, array.mode) == (np.float16, "r")


def test_batches_bring_the_rows_of_their_images_and_view(full_cache):
    train = full_cache.attach(SPLIT)
    plain = SPLIT.in_views(VIEWS)
    arguments = {"seed": 2, "generation": 1, "first_epoch": 1, "epochs": 5}
    pairs = zip(train.epochs(8, **arguments), plain.epochs(8, **arguments), strict=True)
    assert (len(train), train.steps_per_epoch(8)) == (N, 3)
    for step, ((x, labels), (images, same_labels)) in enumerate(pairs):
        epoch, place = 1 + step // 3, step % 3 * 8
        indices = epoch_plan(N, 2, 1, epoch).order[place : place + 8]
        np.testing.assert_array_equal(labels, same_labels)
        np.testing.assert_array_equal(x.images, images)
        np.testing.assert_array_equal(
            x.attached["teacher_logits"], full_cache.logits[epoch % 3][indices]
        )
        for layer, rows in x.attached["teacher_features"].items():
            np.testing.assert_array_equal(rows, full_cache.features[layer][epoch % 3][indices])


# Training.


def rounded(teacher):
    return keras.Model(teacher.input, ops.cast(ops.cast(teacher.output, "float16"), "float32"))


def trained(make, train, steps=3, rate=0.01):
    trainer = make()
    trainer.compile(keras.optimizers.SGD(rate))
    history = trainer.fit(
        train.epochs(8, seed=2, epochs=2), steps_per_epoch=steps, verbose=0, shuffle=False
    ).history
    return trainer, [np.asarray(v) for v in trainer.trainable_variables], history


def without_teacher(trainer):
    trainer._teaching.value = None  # whoever calls it fails
    return trainer


def test_training_equals_that_with_the_teacher_to_the_precision_of_float16(cache):
    method = KD(0.8, 2.0)
    train, views = cache.attach(SPLIT), SPLIT.in_views(VIEWS)
    _, found, _ = trained(lambda: without_teacher(Student(linear(0), TEACHER, method)), train)
    _, twin, _ = trained(lambda: Student(linear(0), rounded(TEACHER), method), views)
    _, exact, _ = trained(lambda: Student(linear(0), TEACHER, method), views)
    for a, b in zip(found, twin, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-7)
    # A teacher's logit is off by 2^-11 of the largest; its softened probability by that over 2 T,
    # as sum_j |dp_i / dt_j| = 2 p_i (1 - p_i) / T <= 1 / 2T; a weight's gradient by weight x T x
    # the largest pixel times that. Three steps; twice for the steps' effect on each other.
    logit = np.abs(cache.logits.astype(float)).max() * 2**-11
    pixel = max(MEAN, 1 - MEAN) / STD
    bound = 2 * 3 * 0.01 * 0.8 * 2 * pixel * logit / (2 * 2)
    difference = max(np.abs(a - b).max() for a, b in zip(found, exact, strict=True))
    assert 0 < difference < bound


def test_the_loss_is_that_of_the_rounded_logits(cache):
    """Adjusted, focal and weighted by confidence: all that reads the teacher's logits."""
    student = linear(0)
    trainer = Student(
        student,
        TEACHER,
        [
            methods.CWTM(),
            KD(0.7, 4.0, corrections=[methods.ProbabilityShift(), methods.Focal(slope=6.0)]),
        ],
    )
    without_teacher(trainer).compile(keras.optimizers.SGD(0.0))
    (x, labels), *_ = cache.attach(SPLIT).epochs(N, seed=2, first_epoch=1, epochs=2)
    order = epoch_plan(N, 2, 0, 1).order
    images, z = shown(1)[order], np.asarray(student(shown(1)[order]), np.float64)
    t = np.float64(np.asarray(TEACHER(images)).astype(np.float16))
    y = LABELS[order]
    unit_t, unit_z = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (t, z))
    focal = 1 - (unit_t * unit_z).sum(-1)
    temperature = np.maximum(4 + 6 * (focal.mean() - focal), 1)
    confidence = reference.softmax(t).max(-1)
    corrected, rows = t.copy(), np.arange(N)
    corrected[rows, y], corrected[rows, t.argmax(-1)] = t.max(-1), t[rows, y]
    label = reference.crossentropy(np.eye(CLASSES)[y], z) * confidence / confidence.mean()
    taught = reference.divergence(corrected, z, temperature)
    logs = trainer.train_on_batch(x, labels, return_dict=True)
    assert logs["label"] == pytest.approx(0.3 * label.mean(), rel=1e-5)
    # float16 halves that lie between two numbers may be rounded to either.
    assert logs["kd"] == pytest.approx(0.7 * taught.mean(), rel=1e-4)


@pytest.mark.parametrize(
    "method", [methods.FitNet(), methods.Attention()], ids=lambda method: method.name
)
def test_features_come_from_the_cache(full_cache, method):

    def make(teacher=TEACHER):
        return Student(network(1, width=3), teacher, (KD(0.5, 1.0), method))

    def make_cached():
        return without_teacher(make())

    cached, found, history = trained(make_cached, full_cache.attach(SPLIT), rate=1e-4)
    _, exact, expected = trained(make, SPLIT.in_views(VIEWS), rate=1e-4)
    for name, values in expected.items():
        np.testing.assert_allclose(history[name], values, rtol=2e-3, err_msg=name)
    for a, b in zip(found, exact, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    assert len(found) == len(cached.network.trainable_variables) + 3 * (method.name == "fitnet")


def test_evaluation_and_prediction_run_the_teacher_and_the_network(cache):
    trainer = Student(linear(0), TEACHER, KD(0.8, 1.0))
    trainer.compile(keras.optimizers.SGD(0.01), metrics=["accuracy"])
    history = trainer.fit(
        cache.attach(SPLIT).epochs(8, seed=2, epochs=1),
        validation_data=SPLIT.batches(N),
        shuffle=False,
        verbose=0,
    ).history
    images = np.asarray((IMAGES / 255 - MEAN) / STD, np.float32)
    taught = reference.divergence(np.asarray(TEACHER(images)), trainer.network(images), 1)
    assert history["val_kd"][0] == pytest.approx(0.8 * taught.mean(), rel=1e-4)
    x = Examples(images, {"teacher_logits": np.zeros((N, CLASSES), np.float16)})
    np.testing.assert_allclose(trainer.predict(x, verbose=0), trainer.network(images), atol=1e-6)


def test_two_replicas_equal_one(full_cache, two_replicas):
    taught = (KD(0.5, 1.0), methods.FitNet(1.0))
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            student = Student(network(1), TEACHER, taught)
            trainer = without_teacher(student)
            trainer.compile(keras.optimizers.SGD(0.01, momentum=0.9), metrics=["accuracy"])
        data = full_cache.attach(SPLIT).epochs(8, seed=2, epochs=1)  # the last batch: 6, as 3 + 3
        history = trainer.fit(data, verbose=0, shuffle=False).history
        results.append([*map(np.asarray, trainer.trainable_variables), *history.values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_built_by_a_teacher_of_two_replicas(cache, tmp_path, two_replicas):
    with two_replicas.scope():
        teacher = network(7)
    found = teacher_cache.build(teacher, SPLIT, tmp_path, views=VIEWS)
    assert found.directory == cache.directory


def test_a_training_goes_on_after_an_interruption(cache, tmp_path):
    Info = namedtuple("Info", ["image_shape", "classes"])
    Data = namedtuple("Data", ["info", "train", "validation"])
    data = Data(Info((SIDE, SIDE, 1), CLASSES), cache.attach(SPLIT), SPLIT)
    schedule = Schedule(epochs=4, batch_size=8, learning_rate=0.01, drops=(2,))

    class Killed(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    def train(directory, callbacks=()):
        settings = Settings(schedule, epochs=4, batch_size=8, callbacks=callbacks)
        training = Training(tmp_path / directory, settings)
        network, _ = training.run(lambda: Student(linear(0), TEACHER, "kd"), data)
        return network.get_weights()

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("killed", [Killed()])
    for a, b in zip(whole, train("killed"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


# When a cache is used.


def identity(cache):
    return cache.directory, (cache.directory / "logits.npy").stat().st_ino


def test_the_same_teacher_finds_its_cache(cache, tmp_path, recwarn):
    again = teacher_cache.build(TEACHER, make_split(), tmp_path, views=VIEWS, batch_size=5)
    # Layers that have no names of their own are numbered on in a process.
    other_names = teacher_cache.build(network(7), SPLIT, tmp_path, views=VIEWS)
    assert identity(cache) == identity(again) == identity(other_names)
    assert not [w for w in recwarn if "cache" in str(w.message)]


def changed(array):
    array = array.copy()
    array.flat[0] += 1
    return array


def nudged():
    teacher = network(7)
    bias = teacher.layers[1].bias
    bias.assign(np.nextafter(np.asarray(bias), 1))
    return teacher


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": nudged},
        {"teacher": lambda: network(7, activation="relu")},
        {"teacher": lambda: models.Ensemble([TEACHER])},
        {"split": lambda: make_split(images=changed(IMAGES))},
        {"split": lambda: make_split(labels=changed(LABELS))},
        {"split": lambda: make_split(augmentation=Augmentation(pad=2))},
        {"views": lambda: dataclasses.replace(VIEWS, count=2)},
        {"views": lambda: dataclasses.replace(VIEWS, seed=0)},
        {"views": lambda: dataclasses.replace(VIEWS, generation=0)},
        {"layers": lambda: ("stage1",)},
    ],
)
def test_whatever_differs_is_another_cache(cache, tmp_path, change):
    arguments = {"teacher": TEACHER, "split": SPLIT, "views": VIEWS}
    arguments |= {name: make() for name, make in change.items()}
    other = teacher_cache.build(directory=tmp_path, **arguments)
    assert other.directory != cache.directory
    assert cache.directory.exists()


def flip_a_byte(directory):
    path = directory / "logits.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def change_key(directory):
    contents = json.loads((directory / "cache.json").read_text())
    (directory / "cache.json").write_text(json.dumps({**contents, "key": "0" * 64}))


DAMAGES = {
    "logits.npy does not match its checksum": flip_a_byte,
    "it was built of another teacher, split or views": change_key,
    "No such file": lambda directory: (directory / "features_2.npy").unlink(),
    "features_1.npy does not match": lambda directory: (directory / "features_1.npy").write_bytes(
        b""
    ),
    "line 1 column": lambda directory: (directory / "cache.json").write_text('{"key": '),
    "no JSON object": lambda directory: (directory / "cache.json").write_text("[]"),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_damage_is_named_and_computed_again(full_cache, tmp_path, reason):
    logits = np.array(full_cache.logits)
    features = [np.array(values) for values in full_cache.features.values()]
    DAMAGES[reason](full_cache.directory)
    with pytest.warns(UserWarning, match=reason) as record:
        again = teacher_cache.build(TEACHER, SPLIT, tmp_path, views=VIEWS, layers=LAYERS)
    (message,) = (str(w.message) for w in record if w.category is UserWarning)
    assert "\n" not in message
    assert str(full_cache.directory) in message
    np.testing.assert_allclose(again.logits, logits, rtol=2**-10, atol=1e-5)
    for values, expected in zip(again.features.values(), features, strict=True):
        np.testing.assert_allclose(values, expected, rtol=2**-10, atol=1e-5)


def test_what_a_killed_process_left_is_removed(cache, tmp_path):
    logits = np.array(cache.logits)
    cache.directory.rename(tmp_path / f".partial-0123abcd-{cache.directory.name}")
    (tmp_path / f".partial-0123abcd-{cache.directory.name}" / "cache.json").unlink()
    again = teacher_cache.build(TEACHER, SPLIT, tmp_path, views=VIEWS, batch_size=8)
    np.testing.assert_array_equal(again.logits, logits)
    assert [path.name for path in files.contents(tmp_path)] == [cache.directory.name]


def test_an_interruption_leaves_nothing(tmp_path):
    def batches(batch_size, views):
        yield from SPLIT.batches(batch_size, views).take(2)
        raise KeyboardInterrupt

    split = make_split()
    split.batches = batches
    with pytest.raises(KeyboardInterrupt):
        teacher_cache.build(TEACHER, split, tmp_path, views=VIEWS, batch_size=8)
    assert files.contents(tmp_path) == []


# Errors.


def test_directories_that_cannot_hold_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    size = 2 * 3 * 22 * 5

    def build(directory):
        teacher_cache.build(TEACHER, SPLIT, tmp_path / directory, views=VIEWS)

    with pytest.raises(ValueError, match=f"`directory`.*{size} bytes free.*/file'") as error:
        build("file")
    assert "\n" not in str(error.value)
    with monkeypatch.context() as patched:
        removed = files.LostDirectoryError("it was removed")  # which has no `strerror`
        patched.setattr(files, "write_atomically", mock.Mock(side_effect=removed))
        with pytest.raises(ValueError, match=r"/lost' \(it was removed\)$"):
            build("lost")
    usage = shutil.disk_usage(tmp_path)._replace(free=size - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ValueError, match=rf"{size} bytes free.*/full' \(No space left on device\)"):
        build("full")


def test_errors_name_the_argument(cache, tmp_path):
    def build(teacher, **options):
        teacher_cache.build(teacher, SPLIT, tmp_path, views=VIEWS, **options)

    with pytest.raises(ValueError, match=r"`layers`.*'stage3'.*Near matches: stage2, stage1"):
        build(TEACHER, layers=["stage3"])
    with pytest.raises(ValueError, match=r"`layers`.*functional.*Ensemble"):
        build(models.Ensemble([TEACHER]), layers=["stage1"])
    huge = linear(7)
    huge.layers[-1].bias.assign([0, 0, 0, 0, -70_000])
    with pytest.raises(ValueError, match=r"`teacher`.*65504.*Received: (69|70)\d+.*logits"):
        build(huge)
    with pytest.raises(ValueError, match=r"`split` must be the one.*other images"):
        cache.attach(make_split(images=changed(IMAGES)))
    for method, layer in ((methods.FitNet(layers=(("stage1", "stage1"),)), "stage1"), ("rkd", "d")):
        trainer = Student(network(1), TEACHER, method)
        trainer.compile("sgd")
        with pytest.raises(ValueError, match=rf"^Argument `methods`.*holds: none.*'{layer}") as one:
            trainer.fit(cache.attach(SPLIT).epochs(8, seed=0, epochs=1), shuffle=False, verbose=0)
        assert len(str(one.value).splitlines()) == 1
