import keras
import numpy as np
import pytest
import tensorflow as tf

from kdtoolkit import analysis, losses, models
from kdtoolkit._checks import ArgumentError
from kdtoolkit.methods import KD, Embedding


def test_of_a_linear_layer_by_hand():
    """Cross-entropy of a 1x1 convolution of single pixels: x (softmax - onehot)."""
    image = keras.Input((1, 1, 3))
    x = keras.layers.Conv2D(4, 1, use_bias=False, name="only")(image)
    network = keras.Model(image, keras.layers.Flatten()(x))
    random = np.random.default_rng(0)
    batches = [(random.normal(size=(5, 1, 1, 3)).astype("float32"), np.arange(5) % 4)] * 2
    batches += [(random.normal(size=(2, 1, 1, 3)).astype("float32"), np.array([3, 0]))]
    found = analysis.convolution_gradients(network, batches, losses.crossentropy)
    kernel = np.array(network.get_layer("only").kernel, np.float64)[0, 0]
    expected = []
    for pixels, y in batches:
        x = np.float64(pixels[:, 0, 0])
        scores = np.exp(x @ kernel)
        scores /= scores.sum(-1, keepdims=True)
        expected.append(np.abs(x.T @ (scores - np.eye(4)[y]) / len(y)).mean())
    assert found == {"only": pytest.approx(np.mean(expected), rel=1e-5)}


@pytest.fixture(scope="module")
def network():
    plain = models.build("resnet8", (8, 8, 3), 4)
    network = models.add_exits(plain, ["stage1", "stage2"], mid=4)
    for weight in network.weights:  # shallow and deep exits must differ for a divergence
        weight.assign(weight + 0.05 * np.random.default_rng(1).normal(size=weight.shape))
    return network


@pytest.fixture(scope="module")
def batches():
    random = np.random.default_rng(2)
    return [(random.normal(size=(6, 8, 8, 3)).astype("float32"), np.arange(6) % 4)]


def test_of_self_distillation(network, batches):
    """The paper's loss, written out again, on the same batch."""
    before = [np.array(weight).tobytes() for weight in network.weights]
    methods = (KD(0.4, 2.0), Embedding(0.1))
    found = analysis.distillation_gradients(network, batches, methods)
    assert [np.array(weight).tobytes() for weight in network.weights] == before
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    both, ((x, y),) = models.features(copy), batches
    with tf.GradientTape(persistent=True) as tape:
        outputs = both(x, training=True)
        z, f = outputs["logits"], outputs["features"]

        def ce(logits):
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))

        deepest = ce(z["exit_3"])
        labels = deepest + ce(z["exit_1"]) + ce(z["exit_2"])
        whole, teacher = deepest, tf.stop_gradient(z["exit_3"])
        target = tf.nn.softmax(teacher / 2)
        for name in ("exit_1", "exit_2"):
            log_q = tf.nn.log_softmax(z[name] / 2)
            kl = tf.reduce_sum(target * (tf.math.log(target) - log_q), -1)
            far = tf.reduce_sum((f[name] - tf.stop_gradient(f["exit_3"])) ** 2, -1)
            whole += 0.6 * ce(z[name]) + tf.reduce_mean(0.4 * 4 * kl + 0.1 * far)
    kernels = [layer for layer in copy.layers if isinstance(layer, keras.layers.Conv2D)]
    sums = {"deepest exit": deepest, "deep supervision": labels, "self-distillation": whole}
    assert list(found) == list(sums)
    for kind, loss in sums.items():
        assert sorted(found[kind]) == sorted(layer.name for layer in kernels)
        for layer in kernels:
            gradient = tape.gradient(loss, layer.kernel.value)
            expected = 0 if gradient is None else float(tf.reduce_mean(tf.abs(gradient)))
            assert found[kind][layer.name] == pytest.approx(expected, rel=1e-3, abs=1e-8)
    heads = [name for name in found["deepest exit"] if name.startswith("exit_")]
    assert list(found["deepest exit"])[-len(heads) :] == heads == sorted(heads, key=lambda x: x[:6])
    assert heads and not any(found["deepest exit"][name] for name in heads)


def test_nothing_to_look_at(network, batches):
    with pytest.raises(ArgumentError, match="`batches`"):
        analysis.distillation_gradients(network, [])
    image = keras.Input((8, 8, 3))
    dense = keras.Model(image, keras.layers.Dense(4)(keras.layers.Flatten()(image)))
    with pytest.raises(ArgumentError, match="a convolution"):
        analysis.convolution_gradients(dense, batches, losses.crossentropy)
    with pytest.raises(ArgumentError, match="multi-exit"):
        analysis.distillation_gradients(dense, batches)
