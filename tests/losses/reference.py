"""The losses written out in NumPy float64, and derivatives by central differences."""

import numpy as np


def log_softmax(z):
    z = np.asarray(z, np.float64)
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def softmax(z):
    return np.exp(log_softmax(z))


def crossentropy(targets, z):
    return -(targets * log_softmax(z)).sum(-1)


def score_difference(z, k):
    """`k` is a number, or one of each sample."""
    f = -np.sort(-softmax(z), axis=-1)
    pairs = zip(f, np.broadcast_to(k, len(f)), strict=True)
    return np.array([row[0] - row[1:count].mean() for row, count in pairs])


def adaptive_top_k(z, share):
    f = softmax(z)
    return np.maximum((f >= share * f.max(-1, keepdims=True)).sum(-1), 2)


def adaptive_eta(z, share, primary_score):
    k = adaptive_top_k(z, share)
    return (k - 1) / (k - 1 + k * primary_score)


def entropy(z):
    return -(softmax(z) * log_softmax(z)).sum(-1)


def divergence(t, s, temperature):
    temperature = np.broadcast_to(np.asarray(temperature, np.float64), len(t))[:, None]
    p = softmax(t / temperature)
    kl = (p * (log_softmax(t / temperature) - log_softmax(s / temperature))).sum(-1)
    return temperature[:, 0] ** 2 * kl


def gradient(function, z, step=1e-6):
    """Derivative of `sum(function(z))` by central differences."""
    z = np.asarray(z, np.float64)
    result = np.zeros_like(z)
    for index in np.ndindex(z.shape):
        moved = z.copy()
        moved[index] += step
        above = function(moved).sum()
        moved[index] -= 2 * step
        result[index] = (above - function(moved).sum()) / (2 * step)
    return result
