"""The layers of convolution networks in NumPy and float64, on the weights of a network."""

import numpy as np


class Reference:
    """Computes single layers of a network, found by name.

    Batch normalisation and biases get values of their own: initial ones hide mistakes.
    """

    def __init__(self, network, padding="same"):
        rng = np.random.default_rng(0)
        for variable in network.variables:
            if variable.name in ("moving_variance", "gamma"):
                variable.assign(rng.uniform(0.5, 1.5, variable.shape))
            elif variable.name in ("moving_mean", "beta", "bias"):
                variable.assign(rng.normal(0, 0.3, variable.shape))
        self._network = network
        self._padding = padding

    def _values(self, name):
        layer = self._network.get_layer(name)
        return {v.name: np.array(v, np.float64) for v in layer.variables}

    def conv(self, x, name, stride=1):
        """Convolution, padded as Keras or PyTorch do."""
        values = self._values(name)
        kernel = values["kernel"]
        size = kernel.shape[0]
        sides = [(size // 2, size // 2)] * 2
        if self._padding == "same":
            missing = [max((-(-n // stride) - 1) * stride + size - n, 0) for n in x.shape[1:3]]
            sides = [(m // 2, m - m // 2) for m in missing]
        x = np.pad(x, [(0, 0), *sides, (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
        windows = windows[:, ::stride, ::stride]
        return np.einsum("nhwcij,ijcd->nhwd", windows, kernel) + values.get("bias", 0)

    def bn(self, x, name):
        values = self._values(name)
        x = (x - values["moving_mean"]) / np.sqrt(values["moving_variance"] + 1e-5)
        return x * values["gamma"] + values["beta"]

    def bn_relu(self, x, name):
        return relu(self.bn(x, name))

    def dense(self, x, name):
        values = self._values(name)
        return x @ values["kernel"] + values["bias"]

    def logits(self, x):
        """Average pooling and the last layer."""
        return self.dense(x.mean((1, 2)), "logits")

    def check(self, logits, images):
        """Compares with the network's own logits."""
        found = self._network(images, training=False)
        np.testing.assert_allclose(found, logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


def relu(x):
    return np.maximum(x, 0)


def halves(x):
    """The 2x2 windows of an image of even size, `(n, h, w, 4, c)`."""
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h // 2, w // 2, 4, c)


def images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
