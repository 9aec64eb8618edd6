"""Filters that whiten patches: a first convolution that is computed from the images, not learned.

Neighbouring pixels are nearly equal, so the K·K·3 numbers of a patch are strongly correlated; gradient descent is slow in
the directions in which they vary little. With C the covariance of all patches of N images, scaled as the net sees them,
and C = Q Λ Qᵀ its eigenvectors (columns q_i) and eigenvalues λ_1 ≥ λ_2 ≥ …:

(1)  w_i = q_i / √(λ_i + ε)        the outputs qᵢᵀ(patch) / √λ_i have variance 1 and are not correlated
(2)  filters  w_1, −w_1, w_2, −w_2, …        after ReLU both signs of a direction are needed

Jordan 2024 (*94% on CIFAR-10 in 3.29 seconds on a single GPU*, section 3.2) has it with ε = 5·10⁻⁴ and filters of 2×2.

The sums of products of bytes are whole numbers, exact in float64 and in any order of adding. The eigenvectors are found by
Jacobi's rotations (1846), not by a library's routine, whose bits differ between processors.
"""

import numpy as np

from numnet.errors import NumnetError

IMAGES = 5000  # of the training set that are looked at
EPSILON = 5e-4
CHUNK = 200  # images at a time
SWEEPS = 30  # of Jacobi; 6 to 10 are enough


def whiten(net, split, scaling) -> None:
    """Give the first convolution of ``net`` the filters (2) of the patches of ``split``; the rest stays as it is.

    scaling: {"mean": [3], "std": [3]} of x/255. Where there are more filters than 2·K·K·3 the others keep their numbers;
    where there are fewer, the directions of the largest λ come first. Raises NumnetError for a net that does not begin
    with a standard convolution of colour images.
    """
    first = net.layers[0]
    if first.kind != "conv" or net.input_shape[2] != 3:
        raise NumnetError(
            f"whiten: expected a net that begins with a standard convolution of colour images, got a {first.kind} of "
            f"{net.input_shape[2]} channels"
        )
    weight = net.params[f"{first.name}.weight"]
    side, filters = weight.shape[0], weight.shape[3]
    found = filters_of(covariance(split.read(looked_at(split.labels)), side, scaling))
    found = found[:, :filters].reshape(side, side, 3, -1)
    weight[..., : found.shape[3]] = found


def looked_at(labels) -> np.ndarray:
    """The numbers of the IMAGES images: the first ones, or, where images lie class by class as in a folder, some of each."""
    count = min(IMAGES, len(labels))
    by_class = np.count_nonzero(np.diff(labels)) < len(np.unique(labels))
    return np.arange(count) * len(labels) // count if by_class else np.arange(count)


def covariance(images, side, scaling) -> np.ndarray:
    """C (side·side·3)², float64, of all patches of uint8 images (N, H, W, 3), scaled; about 0, not about their mean.

    The scaling takes off the mean of each colour already, and a patch's mean is the image's brightness, a direction like
    any other.
    """
    high, wide = images.shape[1:3]
    places = [(u, v) for u in range(side) for v in range(side)]
    count, size = len(images) * (high - side + 1) * (wide - side + 1), 3 * len(places)
    products, sums = np.zeros((size, size)), np.zeros(size)
    for lo in range(0, len(images), CHUNK):  # whole numbers below 2⁵³ throughout
        x = images[lo : lo + CHUNK].astype(np.float64)
        patches = [x[:, u : high - side + 1 + u, v : wide - side + 1 + v] for u, v in places]
        patches = np.concatenate(patches, axis=3).reshape(-1, size)
        products += patches.T @ patches
        sums += patches.sum(axis=0)
    # E[(ax + b)(ay + b')] from the whole numbers Σxy and Σx; scaled: a = 1/(255·std), b = −mean/std.
    a = np.tile(1 / (255 * np.asarray(scaling["std"], np.float64)), len(places))
    b = np.tile(-np.asarray(scaling["mean"], np.float64) / np.asarray(scaling["std"]), len(places))
    mean = sums / count
    return (
        np.outer(a, a) * (products / count) + np.outer(a * mean, b) + np.outer(b, a * mean) + np.outer(b, b)
    )


def filters_of(matrix) -> np.ndarray:
    """(1) and (2) for a covariance matrix (n, n): columns w_1, −w_1, w_2, …, shape (n, 2n)."""
    values, vectors = eigen(matrix)
    w = vectors / np.sqrt(np.maximum(values, 0) + EPSILON)
    return np.stack([w, -w], axis=2).reshape(len(w), -1)


def eigen(matrix):
    """(eigenvalues, falling; their vectors as columns) of a symmetric matrix, by Jacobi's rotations.

    Each rotation makes one number off the diagonal 0; sweeps over all of them end when nothing is left but rounding. Of a
    vector and its negative the one whose largest number is positive.
    """
    a, q = np.array(matrix, np.float64), np.eye(len(matrix))
    for _ in range(SWEEPS):
        off = np.abs(a - np.diag(np.diag(a))).max()
        if off <= 1e-15 * np.abs(np.diag(a)).max():
            break
        for i in range(len(a)):
            for j in range(i + 1, len(a)):
                if a[i, j] != 0:
                    _rotate(a, q, i, j)
    order = np.argsort(-np.diag(a), kind="stable")
    values, q = np.diag(a)[order], q[:, order]
    return values, q * np.sign(q[np.abs(q).argmax(axis=0), np.arange(len(q))])


def _rotate(a, q, i, j) -> None:
    """Turn the axes i and j until a[i, j] is 0; q gathers the turns."""
    theta = (a[j, j] - a[i, i]) / (2 * a[i, j])
    t = (1.0 if theta >= 0 else -1.0) / (abs(theta) + np.sqrt(theta * theta + 1))
    c = 1 / np.sqrt(t * t + 1)
    s = t * c
    for m in (a, a.T, q):  # rows of a, columns of a, columns of q
        left, right = m[:, i].copy(), m[:, j].copy()
        m[:, i], m[:, j] = c * left - s * right, s * left + c * right
