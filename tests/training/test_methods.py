"""Every trainer and every method of the registry, through one suite.

An entry of CASES says how to make the trainer, what its networks return, found without the trainer,
and what its terms are, in NumPy float64. A method of the registry without an entry, or one that
`KDTOOLKIT_TEST_METHODS=package.module:Class` names, goes through the suite with its own terms in
the place of these: all but that the formula is the paper's is tested. `test_registry` asks for an
entry for each method of this package.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from kdtoolkit import methods, models
from kdtoolkit.data import Examples
from kdtoolkit.losses.divergence import permute_secondary_by
from kdtoolkit.methods import (
    CWTM,
    DIST,
    DKD,
    DKPP,
    KD,
    NKD,
    RKD,
    RLD,
    TTM,
    WTTM,
    Attention,
    Embedding,
    FitNet,
    Focal,
    LabelSmooth,
    ProbabilityShift,
    ReviewKD,
    Similarity,
    Standardize,
    StudentMax,
)
from kdtoolkit.training import (
    MutualLearning,
    Patriarch,
    SelfDistillation,
    Student,
)
from kdtoolkit.training.replicas import uniform
from tests.losses import reference

DIGITS, TARGETS = load_digits(return_X_y=True)
DIGITS = (DIGITS / 16 - 0.5).reshape(-1, 8, 8, 1).astype("float32")
CLASSES, N = 10, 7
WIDTH = 16  # of the networks that learn; the others need only be quick
X, Y = DIGITS[:N], TARGETS[:N]
ONE_HOT = np.eye(CLASSES)[Y]
RNG = np.random.default_rng(0)


class Networks:
    """Small networks; the teacher is wider, and takes trained weights where there are some."""

    def __init__(self, width=4, teacher_weights=None, synchronized=False, l2=0.0):
        self.width = width
        self.teacher_weights = teacher_weights
        self.synchronized = synchronized
        self.l2 = l2

    def student(self, seed=0, width=None):
        keras.utils.set_random_seed(seed)
        width = width or self.width
        x = image = keras.Input((8, 8, 1))
        for stage, (factor, stride) in enumerate(((1, 1), (2, 2)), start=1):
            x = keras.layers.Conv2D(
                factor * width,
                3,
                stride,
                padding="same",
                use_bias=False,  # the normalisation's: this one's gradient would be rounding alone
                kernel_regularizer=keras.regularizers.L2(self.l2) if self.l2 else None,
            )(x)
            x = keras.layers.BatchNormalization(momentum=0.8, synchronized=self.synchronized)(x)
            x = keras.layers.Activation("tanh", name=f"stage{stage}")(x)
        x = keras.layers.GlobalAveragePooling2D(name="pooled")(x)
        network = keras.Model(image, keras.layers.Dense(CLASSES, dtype="float32")(x))
        if self.teacher_weights is None:  # logits of some size
            network.layers[-1].kernel.assign(4 * network.layers[-1].kernel)
        return network

    def teacher(self):
        teacher = self.student(seed=1, width=self.width + 2)
        if self.teacher_weights is not None:
            teacher.set_weights(self.teacher_weights)
        return teacher

    def exits(self):
        network = models.add_exits(self.student(), mid=3)
        for layer in network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = self.synchronized
        return network


@dataclass(frozen=True)
class Case:
    """A trainer with its methods.

    Attributes:
        make: `Networks` -> trainer.
        terms: (one-hot labels, outputs, the same outputs as constants, signals, trainer) -> dict of
            terms per sample; what receives no gradient is computed from the constants.
        outputs: (trainer, images) -> what `terms` is given.
        signals: (trainer, images) -> likewise from the teacher.
        shift_invariant: a constant added to all logits of a sample changes nothing; None if this
            is not known.
        random: draws by position in the global batch.
        exact: `terms` is in float64 and written independently.
    """

    make: Callable
    terms: Callable
    outputs: Callable = lambda trainer, x: trainer.network(x, training=False)
    signals: Callable = lambda trainer, x: {}
    shift_invariant: bool = True
    random: bool = False
    exact: bool = True


# References in NumPy.


def patriarch(**parts):
    return lambda y, z, constant, signals, trainer: {name: f(y, z) for name, f in parts.items()}


def shifted(t, y):
    t = t.copy()
    for row, true in zip(t, y.argmax(-1), strict=True):
        largest = row.argmax()
        row[[true, largest]] = row[[largest, true]]
    return t


def smoothed(t, y):
    t = t.copy()
    for row, true in zip(t, y.argmax(-1), strict=True):
        if row[true] < row.max():
            row[:] = np.log(0.1 / (CLASSES - 1))
            row[true] = np.log(0.9)
    return t


def focal_l2(t, z):
    return 1 - (t * z).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(z, axis=-1)


def focal_l1_squared(t, z):
    return (1 - (reference.softmax(t) * reference.softmax(z)).sum(-1)) ** 2


def student_max(t, z):
    return 1 / reference.softmax(z).max(-1)


def dynamic(weigh, base, slope):
    def temperatures(t, z):
        w = weigh(t, z)
        return np.maximum(base + slope * (w.mean() - w), 1)

    return temperatures


def fixed(temperature):
    return lambda t, z: temperature


ONE, THREE, FOUR = fixed(1), fixed(3), fixed(4)


def unchanged(t, y):
    return t


def student(weight, temperature=ONE, adjust=unchanged, permuted=False):
    def terms(y, z, constant, signals, trainer):
        t = signals["teacher_logits"]
        if permuted:  # that the draw is a permutation is in tests/losses
            t = np.asarray(
                permute_secondary_by(t, uniform(t, trainer.seed, trainer.optimizer.iterations))
            )
        taught = reference.divergence(adjust(t, y), z, temperature(t, constant))
        label = (1 - weight) * reference.crossentropy(y, z)
        return {"label": label, "dkpp" if permuted else "kd": weight * taught}

    return terms


def kl(log_p, log_q):
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def binary(logits, chosen, temperature=1):
    """Log probabilities of a class, a one-hot row each, and of all others together."""
    everyone = reference.log_softmax(logits / temperature)
    others = everyone[chosen == 0].reshape(len(chosen), -1)
    return np.stack([everyone[chosen == 1], np.logaddexp.reduce(others, axis=-1)], axis=-1)


def among(logits, kept, temperature):
    """Log probabilities among the classes of each sample that are kept, a list of vectors."""
    pairs = zip(logits / temperature, kept, strict=True)
    return [reference.log_softmax(z[own]) if own.any() else np.zeros(0) for z, own in pairs]


def on_logits(name, taught, standardized=False, labels=1.0):
    """A student taught by (labels, teacher's logits, student's logits) -> `(batch,)`."""

    def terms(y, z, constant, signals, trainer):
        t, s = signals["teacher_logits"], z
        if standardized:
            t, s = (
                (v - v.mean(-1, keepdims=True)) / (v.std(-1, ddof=1, keepdims=True) + 1e-7)
                for v in (t, s)
            )
        return {"label": labels * reference.crossentropy(y, z), name: taught(y, t, s)}

    return terms


def decoupled(alpha, beta, temperature):
    """DKD at the end of its warm-up."""

    def taught(y, t, z):
        confidence = kl(binary(t, y, temperature), binary(z, y, temperature))
        parts = zip(*(among(v, y == 0, temperature) for v in (t, z)), strict=True)
        others = np.array([kl(p, q) for p, q in parts])
        return temperature**2 * (alpha * confidence + beta * others)

    return taught


def refined(y, t, z):
    largest = np.eye(CLASSES)[t.argmax(-1)]
    less_likely = t < (t * y).sum(-1, keepdims=True)
    parts = zip(*(among(v, less_likely, 4) for v in (t, z)), strict=True)
    return kl(binary(t, largest), binary(z, y)) + 8 * 16 * np.array([kl(p, q) for p, q in parts])


def normalized(y, t, z):
    pairs = zip(*(among(logits, y == 0, 3) for logits in (t, z)), strict=True)
    others = np.array([(np.exp(log_p) * log_q).sum() for log_p, log_q in pairs])
    target = (reference.softmax(t) * y).sum(-1) * (reference.log_softmax(z) * y).sum(-1)
    return -target - 3.5 * 9 * others


def transformed(beta, gamma, weighted):
    def taught(y, t, z):
        powers = gamma * reference.log_softmax(t)
        total = np.exp(powers).sum(-1)
        found = kl(powers - np.log(total)[:, None], reference.log_softmax(z))
        return beta * found * (total if weighted else 1)

    return taught


def correlated(y, t, z):
    p, q = reference.softmax(t / 4), reference.softmax(z / 4)

    def distance(a, b):
        with np.errstate(invalid="ignore"):
            found = [np.corrcoef(*pair)[0, 1] for pair in zip(a, b, strict=True)]
        return 1 - np.nan_to_num(found)  # of what is constant there is none

    return 16 * (2 * distance(p, q) + 2 * distance(p.T, q.T).mean())


def context(t, s):
    """HCL, pooled block by block; the networks' features are 8, 4 and 1 pixels high."""
    t = t.reshape(s.shape)
    total, weights = ((t - s) ** 2).mean((1, 2, 3)), 1.0
    for weight, size in zip(
        (0.5, 0.25, 0.125), [k for k in (4, 2, 1) if k < s.shape[1]], strict=False
    ):
        blocks = (len(s), size, s.shape[1] // size, size, s.shape[2] // size, s.shape[3])
        pooled = (t - s).reshape(blocks).mean((2, 4))
        total, weights = total + weight * (pooled**2).mean((1, 2, 3)), weights + weight
    return total / weights


def smooth_l1(x):
    return np.where(np.abs(x) < 1, x**2 / 2, np.abs(x) - 0.5)


def relational(t, s):
    """RKD, triplet by triplet."""

    def of(rows):
        differences = rows[None] - rows[:, None]
        distances = np.linalg.norm(differences, axis=-1)
        unit = differences / np.where(distances > 0, distances, 1)[..., None]
        return distances / distances[distances > 0].mean(), np.einsum("ijc,ikc->ijk", unit, unit)

    (d_t, a_t), (d_s, a_s) = of(t), of(s)
    found = 25 * smooth_l1(d_s - d_t).mean() + 50 * smooth_l1(a_s - a_t).mean()
    return np.full(len(t), found)


def alike(t, s):
    def of(rows):
        rows = rows.reshape(len(rows), -1)
        products = rows @ rows.T
        return products / np.linalg.norm(products, axis=-1, keepdims=True)

    return np.full(len(t), ((of(s) - of(t)) ** 2).sum() / len(t) ** 2)


def confident(y, z, constant, signals, trainer):
    largest = reference.softmax(signals["teacher_logits"]).max(-1)
    return {"label": reference.crossentropy(y, z) * largest / largest.mean()}


def features(name, distance, strength, weight=0.0):
    def terms(y, outputs, constant, signals, trainer):
        pairs = zip(signals["teacher_features"], outputs["features"], strict=True)
        found = student(weight)(y, outputs["logits"], constant["logits"], signals, trainer)
        if not weight:
            del found["kd"]
        return {**found, name: strength * sum(distance(t, s) for t, s in pairs)}

    return terms


def squared(t, s):
    return ((t - s) ** 2).mean((1, 2, 3))


def squared_norm(t, s):
    return ((t - s) ** 2).sum(-1)


def attention(t, s):
    t, s = ((f**2).mean(-1).reshape(len(f), -1) for f in (t, s))
    t, s = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (t, s))
    return ((t - s) ** 2).mean(-1)


def exits(alpha, weight, temperature=THREE, adjust=unchanged):
    def terms(y, outputs, constant, signals, trainer):
        logits, pooled = outputs["logits"], outputs["features"]
        found = {
            "exit_1_label": (1 - alpha) * reference.crossentropy(y, logits["exit_1"]),
            "exit_2_label": reference.crossentropy(y, logits["exit_2"]),
        }
        if alpha:
            t = constant["logits"]["exit_2"]
            tau = temperature(t, constant["logits"]["exit_1"])
            taught = reference.divergence(adjust(t, y), logits["exit_1"], tau)
            found["exit_1_kd"] = alpha * taught
        if weight:
            difference = pooled["exit_1"] - constant["features"]["exit_2"]
            found["exit_1_embedding"] = weight * (difference**2).sum(-1)
        return found

    return terms


def mutual(y, outputs, constant, signals, trainer):
    found = {}
    for name, z in outputs.items():
        taught = [reference.divergence(t, z, 1) for k, t in constant.items() if k != name]
        found[f"{name}_label"] = reference.crossentropy(y, z)
        found[f"{name}_mutual"] = sum(taught) / len(taught)
    return found


# What networks return, by way of the networks alone.


def teacher_logits(trainer, x):
    return {"teacher_logits": trainer.teacher(x, training=False)}


def layer_outputs(network, names, x):
    layers = {name: network.get_layer(name).output for name in names}
    found = keras.Model(network.input, layers)(x, training=False)
    return [found[name] for name in names]


def of_layers(*names):
    def outputs(trainer, x):
        found = layer_outputs(trainer.network, names, x)
        if trainer.projectors:
            (projector,) = trainer.projectors
            found = keras.tree.flatten(projector(found, training=False))
        return {"logits": trainer.network(x, training=False), "features": found}

    def signals(trainer, x):
        found = layer_outputs(trainer.teacher, names, x)
        return {**teacher_logits(trainer, x), "teacher_features": found}

    return {"outputs": outputs, "signals": signals}


def of_exits(trainer, x):
    return models.features(trainer.network)(x, training=False)


def of_peers(trainer, x):
    return {f"peer_{i}": n(x, training=False) for i, n in enumerate(trainer.networks, start=1)}


def taught(terms, *chosen, shift_invariant=True, random=False):
    """The entry of a `Student`."""
    return Case(
        lambda n: Student(n.student(), n.teacher(), chosen),
        terms,
        signals=teacher_logits,
        shift_invariant=shift_invariant,
        random=random,
    )


def matched(terms, *chosen, layers=("stage1", "stage2")):
    """The entry of a `Student` that compares the features of these layers."""
    return Case(lambda n: Student(n.student(), n.teacher(), chosen), terms, **of_layers(*layers))


def own_teacher(terms, *chosen):
    """The entry of a `SelfDistillation`."""
    return Case(lambda n: SelfDistillation(n.exits(), chosen), terms, outputs=of_exits)


ETA, EPSILON, BETA = 4 / 7, 0.4 * 10 / 9, 1 / (0.6 * np.log(0.6 * 9 / 0.4))

CASES = {
    "patriarch, plain": Case(
        lambda n: Patriarch(n.student(), "plain"), patriarch(crossentropy=reference.crossentropy)
    ),
    "patriarch, tolerant": Case(
        lambda n: Patriarch(n.student(), "tolerant", 0.6),
        patriarch(
            crossentropy=lambda y, z: (1 - ETA) * reference.crossentropy(y, z),
            score_difference=lambda y, z: ETA * reference.score_difference(z, 5),
        ),
    ),
    "patriarch, adaptive": Case(
        lambda n: Patriarch(n.student(), "tolerant", 0.6, "adaptive", top_k_share=0.05),
        patriarch(
            crossentropy=lambda y, z: (
                (1 - reference.adaptive_eta(z, 0.05, 0.6)) * reference.crossentropy(y, z)
            ),
            score_difference=lambda y, z: (
                reference.adaptive_eta(z, 0.05, 0.6)
                * reference.score_difference(z, reference.adaptive_top_k(z, 0.05))
            ),
        ),
    ),
    "patriarch, label smoothing": Case(
        lambda n: Patriarch(n.student(), "label_smoothing", 0.6),
        patriarch(
            smoothed_crossentropy=lambda y, z: reference.crossentropy(
                (1 - EPSILON) * y + EPSILON / CLASSES, z
            )
        ),
    ),
    "patriarch, confidence penalty": Case(
        lambda n: Patriarch(n.student(), "confidence_penalty", 0.6),
        patriarch(
            crossentropy=reference.crossentropy,
            confidence_penalty=lambda y, z: -BETA * reference.entropy(z),
        ),
    ),
    "kd": taught(student(0.9, FOUR), KD()),
    "BAN": taught(student(1), KD(1.0, 1.0)),
    "BAN+L": taught(student(0.6), KD(0.6, 1.0)),
    "cwtm": taught(confident, CWTM()),
    "dkd": taught(on_logits("dkd", decoupled(1, 8, 4)), DKD()),
    "rld": taught(on_logits("rld", refined), RLD()),
    "nkd": taught(on_logits("nkd", normalized), NKD()),
    "ttm": taught(on_logits("ttm", transformed(45, 0.1, False)), TTM()),
    "wttm": taught(on_logits("wttm", transformed(4, 0.2, True)), WTTM()),
    "dist": taught(on_logits("dist", correlated), DIST()),
    "standardize": taught(
        on_logits("kd", lambda y, t, z: 9 * reference.divergence(t, z, 2), True, labels=0.1),
        KD(9.0, 2.0, labels=0.1, corrections=[Standardize()]),
    ),
    "dkd+standardize": taught(
        on_logits("dkd", decoupled(18, 36, 3), True),
        DKD(18.0, 36.0, 3.0, corrections=[Standardize()]),
    ),
    "dkpp": taught(student(1, permuted=True), DKPP(), random=True),
    "probability_shift": taught(
        student(0.6, FOUR, shifted), KD(0.6, 4.0, corrections=[ProbabilityShift()])
    ),
    "label_smooth": taught(
        student(0.6, adjust=smoothed), KD(0.6, 1.0, corrections=[LabelSmooth()])
    ),
    "focal": taught(
        student(0.6, dynamic(focal_l2, 4, 6)),
        KD(0.6, 4.0, corrections=[Focal(slope=6.0)]),
        shift_invariant=False,
    ),
    "focal, l1": taught(
        student(0.6, dynamic(focal_l1_squared, 4, 6)),
        KD(0.6, 4.0, corrections=[Focal(slope=6.0, gamma=2.0, normalization="l1")]),
    ),
    "student_max": taught(
        student(0.6, dynamic(student_max, 4, 2)),
        KD(0.6, 4.0, corrections=[StudentMax(slope=2.0)]),
    ),
    "probability_shift+focal": taught(
        student(0.6, dynamic(focal_l2, 4, 6), shifted),
        KD(0.6, 4.0, corrections=[ProbabilityShift(), Focal(slope=6.0)]),
        shift_invariant=False,
    ),
    "fitnet": matched(features("fitnet", squared, 100), FitNet(), layers=["stage2"]),
    "attention": matched(features("attention", attention, 1000), Attention()),
    "kd+attention": matched(
        features("attention", attention, 1000, weight=0.5), KD(0.5, 1.0), Attention()
    ),
    "embedding": Case(
        lambda n: Student(n.student(), n.student(1), Embedding(0.5)),
        features("embedding", squared_norm, 0.5),
        **of_layers("pooled"),
    ),
    "rkd": Case(
        lambda n: Student(n.student(), n.student(1), RKD()),
        features("rkd", relational, 1),
        **of_layers("pooled"),
    ),
    "reviewkd": matched(
        features("reviewkd", context, 5), ReviewKD(), layers=["stage1", "stage2", "pooled"]
    ),
    "similarity": matched(features("similarity", alike, 3000), Similarity(), layers=["stage2"]),
    "self-distillation": own_teacher(exits(0.3, 0.5), KD(0.3, 3.0), Embedding(0.5)),
    "self-distillation, probability_shift+student_max": own_teacher(
        exits(0.3, 0.03, dynamic(student_max, 3, 2), shifted),
        KD(0.3, 3.0, corrections=[ProbabilityShift(), StudentMax(slope=2.0)]),
        Embedding(0.03),
    ),
    "deep supervision": own_teacher(exits(0, 0)),
    "mutual learning": Case(
        lambda n: MutualLearning([n.student(0), n.student(1), n.student(2, width=3)]),
        mutual,
        outputs=of_peers,
    ),
}


def of_itself(name):
    """The entry of a method whose terms are written down nowhere else."""

    def make(networks):
        return Student(networks.student(), networks.teacher(), chosen)

    def terms(y, outputs, constant, signals, trainer):
        labels = tf.constant(y.argmax(-1))
        return float64(trainer.terms(labels, float32(outputs), float32(signals)))

    def outputs(trainer, x):
        return trainer._forward.value(x, training=False)

    chosen = methods.parse(name)
    signals = lambda trainer, x: trainer.signals(Examples.of(x), None)  # noqa: E731
    return Case(make, terms, outputs, signals, shift_invariant=None, exact=False)


OUTSIDE = [name for name in os.environ.get("KDTOOLKIT_TEST_METHODS", "").split(",") if name]
WITHOUT_AN_ENTRY = [name for name in methods.names() if name not in CASES]
CASES |= {name: of_itself(name) for name in (*WITHOUT_AN_ENTRY, *OUTSIDE)}


def test_registry():
    """Every method of this package has its formula above, alone or beside others."""
    tested = " ".join(CASES.keys() - {*WITHOUT_AN_ENTRY, *OUTSIDE})
    own = [n for n in methods.names() if methods.get(n).__module__.startswith("kdtoolkit.")]
    assert [name for name in own if name not in tested] == []


# The suite.

map_structure = keras.tree.map_structure


def compiled(name, networks=None, optimizer=None, eager=True):
    trainer = CASES[name].make(networks or Networks())
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    trainer.compile(optimizer, metrics=["accuracy"], run_eagerly=eager)
    return trainer


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """A method, its trainer, and free outputs and signals in the shapes of its own."""
    method, trainer = CASES[request.param], compiled(request.param)

    def free(values):
        return RNG.normal(size=values.shape) * 2

    outputs = map_structure(free, method.outputs(trainer, X))
    signals = map_structure(free, method.signals(trainer, X))
    return method, trainer, outputs, signals


def float64(values):
    return map_structure(lambda v: np.asarray(tf.cast(v, "float64")), values)


def float32(values):
    return map_structure(lambda v: tf.constant(v, tf.float32), values)


def logits_only(change, values, path=""):
    """Applies a function to the logits among nested values, and leaves features alone."""
    if isinstance(values, dict):
        return {name: logits_only(change, v, path + name) for name, v in values.items()}
    if isinstance(values, list):
        return [logits_only(change, v, path) for v in values]
    return values if "features" in path else change(values)


def assert_terms_equal(found, expected, **tolerance):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, err_msg=name, **tolerance)


def test_terms_equal_float64(case):
    method, trainer, outputs, signals = case
    found = trainer.terms(Y, float32(outputs), float32(signals))
    assert set(found) == set(trainer.term_names)
    assert all(v.dtype == tf.float32 and v.shape == (N,) for v in found.values())
    expected = method.terms(ONE_HOT, outputs, outputs, signals, trainer)
    assert_terms_equal(found, expected, rtol=1e-4, atol=1e-5)


def test_evaluate_reports_each_term_of_the_networks(case):
    method, trainer, _, _ = case
    check_evaluate(method, trainer, 1e-4)


def check_evaluate(method, trainer, rtol):
    outputs, signals = (float64(f(trainer, X)) for f in (method.outputs, method.signals))
    expected = method.terms(ONE_HOT, outputs, outputs, signals, trainer)
    logs = trainer.evaluate(X, Y, batch_size=N, verbose=0, return_dict=True)
    for name, values in expected.items():
        assert logs[name] == pytest.approx(values.mean(), rel=rtol, abs=1e-5), name
    total = sum(values.mean() for values in expected.values())
    assert logs["loss"] == pytest.approx(total, rel=rtol)


def test_gradients_equal_central_differences(case):
    """Along random directions, each of a single output; every sample and term has its factor."""
    method, trainer, outputs, signals = case
    if not method.exact:
        pytest.skip("its terms are not written down in float64")
    factors = {name: RNG.uniform(0.5, 2, N) for name in trainer.term_names}
    variables = map_structure(lambda v: tf.Variable(v, dtype=tf.float32), outputs)
    with tf.GradientTape() as tape:
        terms = trainer.terms(Y, variables, float32(signals))
        total = sum(tf.reduce_sum(terms[name] * factors[name]) for name in factors)
    leaves = keras.tree.flatten(outputs)
    gradients = tape.gradient(total, keras.tree.flatten(variables), unconnected_gradients="zero")

    def value(leaf, moved):
        moved = [moved if i == leaf else v for i, v in enumerate(leaves)]
        moved = keras.tree.pack_sequence_as(outputs, moved)
        terms = method.terms(ONE_HOT, moved, outputs, signals, trainer)
        return sum((terms[name] * factors[name]).sum() for name in factors)

    step = 1e-5
    for leaf, (at, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        for _ in range(6):
            direction = RNG.normal(size=at.shape)
            above, below = value(leaf, at + step * direction), value(leaf, at - step * direction)
            expected = (above - below) / (2 * step)
            found = (np.asarray(gradient, np.float64) * direction).sum()
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def network_with_exits():
    return Networks().exits()


# Of the registry, those with an entry of their name.
OWN = [name for name in methods.names() if name in CASES]
WITHOUT_LAYERS = [
    name
    for name in OWN
    if not (issubclass(methods.get(name), methods.Method) and methods.get(name).compares_layers())
]


@pytest.mark.parametrize("name", WITHOUT_LAYERS)
def test_exits_are_taught_as_students_are(name, network_with_exits):
    """The deepest exit's outputs in the place of a teacher's: the same terms, but for names."""
    method = CASES[name]
    chosen = method.make(Networks()).methods
    trainer = SelfDistillation(network_with_exits, chosen)
    trainer.compile("sgd")
    free = lambda v: RNG.normal(size=(N, v.shape[-1])) * 2  # noqa: E731
    outputs = map_structure(free, trainer._forward.value.output)
    found = trainer.terms(Y, float32(outputs), {})
    logits, pooled = outputs["logits"], outputs["features"]
    signals = {"teacher_logits": logits["exit_2"], "teacher_features": [pooled["exit_2"]]}
    student = logits["exit_1"]
    if any(m.needs_embedding for m in chosen):
        student = {"logits": student, "features": [pooled["exit_1"]]}
    expected = method.terms(ONE_HOT, student, student, signals, trainer)
    expected = {f"exit_1_{term}": values for term, values in expected.items()}
    expected["exit_2_label"] = reference.crossentropy(ONE_HOT, logits["exit_2"])
    assert_terms_equal(found, expected, rtol=1e-4, atol=1e-5)


def test_order_of_the_batch_does_not_matter(case):
    method, trainer, outputs, signals = case
    if method.random:
        pytest.skip("draws by position in the batch")
    order = RNG.permutation(N)
    terms = trainer.terms(Y, float32(outputs), float32(signals))
    moved = [map_structure(lambda v: tf.constant(v[order], tf.float32), v) for v in case[2:]]
    found = trainer.terms(Y[order], *moved)
    assert_terms_equal(found, {k: v.numpy()[order] for k, v in terms.items()}, rtol=1e-4, atol=1e-5)


def test_a_constant_on_all_logits_of_a_sample(case):
    method, trainer, outputs, signals = case
    if method.shift_invariant is None:
        pytest.skip("not known of a method from elsewhere")
    terms = trainer.terms(Y, float32(outputs), float32(signals))
    moved = [logits_only(lambda v: v + RNG.uniform(-5, 5, (N, 1)), v) for v in (outputs, signals)]
    found = trainer.terms(Y, *map(float32, moved))
    equal = all(np.allclose(found[k], v, rtol=1e-3, atol=1e-4) for k, v in terms.items())
    assert equal == method.shift_invariant


def test_extremes_keep_value_and_gradient(case):
    method, trainer, outputs, signals = case
    outputs, signals = (
        map_structure(lambda v: np.where(v > 0, 1e4, -1e4), v) for v in (outputs, signals)
    )
    variables = map_structure(lambda v: tf.Variable(v, dtype=tf.float32), outputs)
    with tf.GradientTape() as tape:
        terms = trainer.terms(Y, variables, float32(signals))
    expected = method.terms(ONE_HOT, outputs, outputs, signals, trainer)
    assert_terms_equal(terms, expected, rtol=1e-3, atol=1e-3)
    gradients = tape.gradient(terms, keras.tree.flatten(variables), unconnected_gradients="zero")
    assert all(np.isfinite(g).all() for g in gradients)


def test_the_teacher_gets_no_gradient_and_does_not_change(case):
    _, trainer, outputs, _ = case
    if not hasattr(trainer, "teacher"):
        pytest.skip("no teacher besides the networks that train")
    variables = trainer.teacher.trainable_variables
    assert not {id(v) for v in variables} & {id(v) for v in trainer.variables}
    with tf.GradientTape() as tape:
        terms = trainer.terms(Y, float32(outputs), trainer.signals(Examples.of(X), Y))
    assert tape.gradient(terms, [v.value for v in variables]) == [None] * len(variables)
    before = trainer.teacher.get_weights()
    trainer.train_on_batch(X, Y)
    for a, b in zip(before, trainer.teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_mixed_bfloat16(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        trainer = compiled(name)
        check_evaluate(CASES[name], trainer, 1e-2)
        assert np.isfinite(trainer.train_on_batch(X, Y)).all()
    finally:
        keras.config.set_dtype_policy("float32")
    assert all(v.dtype == "float32" for v in trainer.trainable_variables)


def terms_on_two_replicas(trainer, two_replicas, values, split):
    """Terms of (outputs, signals, labels), whose first rows the first replica has."""

    def part(context):
        first = context.replica_id_in_sync_group == 0
        return map_structure(lambda v: v[:split] if first else v[split:], values)

    @tf.function
    def run(outputs, signals, labels):
        return two_replicas.run(trainer.terms, args=(labels, outputs, signals))

    parts = two_replicas.experimental_distribute_values_from_function(
        lambda context: tuple(part(context))
    )
    return {
        name: np.concatenate(two_replicas.experimental_local_results(value))
        for name, value in run(*parts).items()
    }


def test_terms_on_two_replicas_equal_one(case, two_replicas):
    """Means and draws are those of the global batch, whatever part of it a replica has."""
    _, trainer, outputs, signals = case
    values = (float32(outputs), float32(signals), tf.constant(Y))
    found = terms_on_two_replicas(trainer, two_replicas, values, N // 2)
    assert_terms_equal(found, trainer.terms(Y, *values[:2]), rtol=1e-4, atol=1e-5)


RELATIONS = [name for name in OWN if getattr(methods.get(name), "relates_samples", False)]


@pytest.mark.parametrize("name", RELATIONS)
def test_relations_in_a_last_batch_of_one_for_each_replica(name, two_replicas):
    """Two replicas relate their two samples; one sample alone has no relations to learn."""
    method, trainer = CASES[name], compiled(name)
    values = [float32(f(trainer, X[:2])) for f in (method.outputs, method.signals)]
    both = (*values, tf.constant(Y[:2]))
    found = terms_on_two_replicas(trainer, two_replicas, both, 1)
    assert_terms_equal(found, trainer.terms(Y[:2], *values), rtol=1e-4, atol=1e-5)
    outputs, signals = (map_structure(lambda v: v[:1], each) for each in values)
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        term = trainer.terms(Y[:1], outputs, signals)[name]
    assert np.isfinite(term).all()
    leaves = keras.tree.flatten(tape.gradient(term, outputs, unconnected_gradients="zero"))
    columns = name == "dist"  # whose rows, the classes of a sample, are related too
    assert all(np.isfinite(g).all() and (columns or not np.any(g)) for g in leaves)


def test_what_is_saved_is_the_network(case, tmp_path):
    _, trainer, _, _ = case
    trainer.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras")
    assert len(loaded.weights) == len(trainer.network.weights)
    found, expected = (keras.tree.flatten(network(X)) for network in (loaded, trainer.network))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def trained_teacher():
    teacher = Networks(WIDTH).teacher()
    trainer = Patriarch(teacher, "plain")
    trainer.compile(keras.optimizers.Adam(0.01))
    trainer.fit(DIGITS[:800], TARGETS[:800], batch_size=40, epochs=8, verbose=0)
    return teacher.get_weights()


# A third of them: what differs between the others, terms and gradients, is exact above.
SHARE = 1 if os.environ.get("KDTOOLKIT_TEST") == "all" else 6
LEARNING = dict.fromkeys([*list(CASES)[::SHARE], *OUTSIDE])


@pytest.mark.parametrize("name", LEARNING)
def test_learns_digits(name, trained_teacher):
    trainer = compiled(
        name, Networks(WIDTH, trained_teacher), keras.optimizers.Adam(0.01), eager=False
    )
    trainer.fit(DIGITS[:800], TARGETS[:800], batch_size=40, epochs=3, verbose=0)
    logits = trainer.network(DIGITS[800:], training=False)
    logits = logits["exit_2"] if isinstance(logits, dict) else logits
    assert (np.argmax(logits, axis=-1) == TARGETS[800:]).mean() > 0.5
