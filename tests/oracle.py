"""The oracle: every operation written down as its definition, slowly, in float64, counting as it goes.

Nothing here is clever and nothing is shared with `numnet`: a reader who trusts these loops has, in the tests
that compare with them, a reason to trust the fast kernels. Letters are the project's: N images · H×W input ·
P×Q output · K kernel side · C channels in · F channels out · ``dy, dx, dw`` gradients with the shape of
``y, x, w``. Arrays are NHWC; weights are (K, K, C, F) for a convolution (any height and width), (K, K, C, M)
for a depthwise one, (C, F) for a pointwise or dense one.

The loops over images, output pixels and taps are Python's. Only the channels of one tap are handled at once,
where NumPy's expression *is* the definition: ``x[n, i, j] @ w[u, v]`` for Σ_c x·w, ``np.outer`` for the C·F
products, ``*`` for channel by channel. `test_oracle.py` repeats the convolution with all seven loops, and
checks everything here against PyTorch and against numbers worked by hand.

``padding`` is explicit everywhere, ((top, bottom), (left, right)); `resolve` makes it from a word.
"""

import math

import numpy as np

NO_PADDING = ((0, 0), (0, 0))


class Count:
    """Multiply-accumulates so far: ``macs`` with the taps that fall on padding, ``macs_inside`` without them.

    A convolution's usual closed form K·K·C·F·P·Q counts every tap, so it equals ``macs``.
    """

    def __init__(self):
        self.macs = 0
        self.macs_inside = 0

    def add(self, macs, inside=True):
        self.macs += macs
        self.macs_inside += macs if inside else 0


def error(got, want):
    """max|got − want| / max|want|: the number that the tests bound."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, f"shapes {got.shape} and {want.shape} differ"
    if want.size == 0:
        return 0.0
    largest, difference = np.abs(want).max(), np.abs(got - want).max()
    return float(difference / largest) if largest > 0 else float(difference)


# --- where a window lies ------------------------------------------------------------------------------------


def pair(value):
    """A number or a pair of them, as a pair."""
    return (value, value) if np.isscalar(value) else tuple(value)


def resolve(padding, size, kernel, stride):
    """((top, bottom), (left, right)) for "same", "symmetric", an int or an explicit pair of pairs.

    "same" is TensorFlow's: the fewest zeros that leave room for one window at every stride-th pixel, half of
    them before the image and the odd one after it. It is searched for here, not computed by the formula.
    """
    if padding == "same":
        return tuple(_fewest(*axis) for axis in zip(pair(size), pair(kernel), pair(stride)))
    if padding == "symmetric":
        return tuple((k // 2, k // 2) for k in pair(kernel))
    if np.isscalar(padding):
        return ((padding, padding), (padding, padding))
    return tuple(tuple(axis) for axis in padding)


def _fewest(size, kernel, stride):
    total = 0
    while _windows(size + total, kernel, stride) < len(range(0, size, stride)):
        total += 1
    return total // 2, total - total // 2


def _windows(size, kernel, stride):
    """How many windows of ``kernel`` numbers fit into ``size`` numbers, ``stride`` apart."""
    return len(range(0, size - kernel + 1, stride))


def output_size(size, kernel, stride, padding):
    """(P, Q)."""
    return tuple(
        _windows(n + before + after, k, s) for n, k, s, (before, after) in zip(size, kernel, stride, padding)
    )


def _taps(x_shape, kernel, stride, padding):
    """Every (n, p, q, u, v, i, j, inside): output pixel p, q reads through tap u, v the input pixel i, j."""
    N, H, W = x_shape[:3]
    stride = pair(stride)
    P, Q = output_size((H, W), kernel, stride, padding)
    for n in range(N):
        for p in range(P):
            for q in range(Q):
                for u in range(kernel[0]):
                    for v in range(kernel[1]):
                        i = p * stride[0] + u - padding[0][0]
                        j = q * stride[1] + v - padding[1][0]
                        yield n, p, q, u, v, i, j, 0 <= i < H and 0 <= j < W


def _float64(*arrays):
    return [np.asarray(a, dtype=np.float64) for a in arrays]


# --- the linear layers --------------------------------------------------------------------------------------


def conv(x, w, stride=1, padding=NO_PADDING, count=None):
    """y[n,p,q,f] = Σ_{u,v,c} x[n, p·s+u−top, q·s+v−left, c] · w[u,v,c,f]; x is 0 outside the image."""
    x, w = _float64(x, w)
    assert x.shape[3] == w.shape[2]
    count = count or Count()
    y = np.zeros((x.shape[0], *output_size(x.shape[1:3], w.shape[:2], pair(stride), padding), w.shape[3]))
    for n, p, q, u, v, i, j, inside in _taps(x.shape, w.shape[:2], stride, padding):
        count.add(w.shape[2] * w.shape[3], inside)
        if inside:
            y[n, p, q] += x[n, i, j] @ w[u, v]
    return y


def conv_backward(dy, x, w, stride=1, padding=NO_PADDING):
    """dx, dw: each product x·w of the forward loops gives w·dy to that x and x·dy to that w."""
    dy, x, w = _float64(dy, x, w)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, p, q, u, v, i, j, inside in _taps(x.shape, w.shape[:2], stride, padding):
        if inside:
            dx[n, i, j] += w[u, v] @ dy[n, p, q]
            dw[u, v] += np.outer(x[n, i, j], dy[n, p, q])
    return dx, dw


def depthwise(x, w, stride=1, padding=NO_PADDING, count=None):
    """y[n,p,q,c·M+m] = Σ_{u,v} x[n, p·s+u−top, q·s+v−left, c] · w[u,v,c,m]."""
    x, w = _float64(x, w)
    assert x.shape[3] == w.shape[2]
    count = count or Count()
    K1, K2, C, M = w.shape
    P, Q = output_size(x.shape[1:3], (K1, K2), pair(stride), padding)
    y = np.zeros((x.shape[0], P, Q, C, M))
    for n, p, q, u, v, i, j, inside in _taps(x.shape, (K1, K2), stride, padding):
        count.add(C * M, inside)
        if inside:
            for m in range(M):
                y[n, p, q, :, m] += x[n, i, j] * w[u, v, :, m]
    return y.reshape(x.shape[0], P, Q, C * M)


def depthwise_backward(dy, x, w, stride=1, padding=NO_PADDING):
    """dx, dw."""
    dy, x, w = _float64(dy, x, w)
    K1, K2, C, M = w.shape
    dy = dy.reshape(*dy.shape[:3], C, M)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for n, p, q, u, v, i, j, inside in _taps(x.shape, (K1, K2), stride, padding):
        if inside:
            for m in range(M):
                dx[n, i, j] += w[u, v, :, m] * dy[n, p, q, :, m]
                dw[u, v, :, m] += x[n, i, j] * dy[n, p, q, :, m]
    return dx, dw


def pointwise(x, w, count=None):
    """y[..., f] = Σ_c x[..., c] · w[c, f] for every pixel: a 1×1 convolution."""
    x, w = _float64(x, w)
    count = count or Count()
    y = np.zeros((*x.shape[:-1], w.shape[1]))
    for pixel in np.ndindex(x.shape[:-1]):
        count.add(w.shape[0] * w.shape[1])
        y[pixel] = x[pixel] @ w
    return y


def pointwise_backward(dy, x, w):
    """dx, dw."""
    dy, x, w = _float64(dy, x, w)
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    for pixel in np.ndindex(x.shape[:-1]):
        dx[pixel] = w @ dy[pixel]
        dw += np.outer(x[pixel], dy[pixel])
    return dx, dw


def dense(x, w, bias=None, count=None):
    """y[n, f] = bias[f] + Σ_c x[n, c] · w[c, f]. The bias is no multiply-accumulate."""
    y = pointwise(x, w, count)
    return y if bias is None else y + _float64(bias)[0]


def dense_backward(dy, x, w):
    """dx, dw, dbias."""
    dx, dw = pointwise_backward(dy, x, w)
    dbias = np.zeros(w.shape[1])
    for row in _float64(dy)[0]:
        dbias += row
    return dx, dw, dbias


# --- activations, a number at a time ------------------------------------------------------------------------
# Written as cases, so that a kink is read off: `<=` takes it to the flat side. NaN stays NaN.


def sigmoid(v):
    return 1 / (1 + math.exp(-v)) if v >= 0 else math.exp(v) / (1 + math.exp(v))


def _hsigmoid(v, slope, kink):
    return 0.0 if v <= -kink else 1.0 if v >= kink else slope * v + 0.5


def _hswish(v):
    return 0.0 if v <= -3 else v if v >= 3 else v * (v + 3) / 6


def _dhswish(v):
    return 0.0 if v <= -3 else 1.0 if v >= 3 else (2 * v + 3) / 6


def _swish(v, beta):
    return v * sigmoid(beta * v)


def _dswish(v, beta):
    s = sigmoid(beta * v)
    return s + beta * v * s * (1 - s)


ACTIVATIONS = {  # name: (the function, its derivative), of one number; at the kinks PyTorch's derivative
    "identity": (lambda v: v, lambda v: 1.0),
    "relu": (lambda v: 0.0 if v <= 0 else v, lambda v: 0.0 if v <= 0 else 1.0),
    "relu6": (
        lambda v: 0.0 if v <= 0 else 6.0 if v >= 6 else v,
        lambda v: 0.0 if v <= 0 else 0.0 if v >= 6 else 1.0,
    ),
    "hsigmoid": (lambda v: _hsigmoid(v, 1 / 6, 3), lambda v: 0.0 if abs(v) >= 3 else 1 / 6),
    # the slope of PaddleClas and of Keras 2
    "hsigmoid02": (lambda v: _hsigmoid(v, 0.2, 2.5), lambda v: 0.0 if abs(v) >= 2.5 else 0.2),
    "hswish": (_hswish, _dhswish),
    "sigmoid": (sigmoid, lambda v: sigmoid(v) * (1 - sigmoid(v))),
}


def _each(function, x):
    return np.array([function(v) for v in x.ravel().tolist()], dtype=np.float64).reshape(x.shape)


def activate(name, x, beta=1.0):
    """The activation ``name`` of every number of ``x``; ``beta`` is swish's: x·sigmoid(beta·x)."""
    (x,) = _float64(x)
    return _each(lambda v: _swish(v, beta), x) if name == "swish" else _each(ACTIVATIONS[name][0], x)


def derivative(name, x, beta=1.0):
    """Its derivative at every number of ``x``."""
    (x,) = _float64(x)
    return _each(lambda v: _dswish(v, beta), x) if name == "swish" else _each(ACTIVATIONS[name][1], x)


def activate_backward(dy, name, x, beta=1.0):
    """dx = dy · activation'(x)."""
    return _float64(dy)[0] * derivative(name, x, beta)


# --- batch normalisation ------------------------------------------------------------------------------------


def _channel_sums(x):
    """Σ over everything but the last axis, rounded once (math.fsum): no order of summing matters."""
    return np.array([math.fsum(column) for column in x.reshape(-1, x.shape[-1]).T])


def batchnorm_training(x, gamma, beta, eps, activation="identity"):
    """y, mean, variance: y = activation(γ·(x−mean)/√(variance+ε) + β), the biased variance of this batch.

    x has its channels last and any axes before them, at least one number a channel.
    """
    x, gamma, beta = _float64(x, gamma, beta)
    count = x.size // x.shape[-1]
    mean = _channel_sums(x) / count
    variance = _channel_sums((x - mean) ** 2) / count
    return batchnorm_inference(x, gamma, beta, mean, variance, eps, activation), mean, variance


def batchnorm_inference(x, gamma, beta, mean, variance, eps, activation="identity"):
    """y, with a mean and a variance that are given (the running ones)."""
    x, gamma, beta, mean, variance = _float64(x, gamma, beta, mean, variance)
    return activate(activation, gamma * (x - mean) / np.sqrt(variance + eps) + beta)


def batchnorm_training_backward(dy, x, gamma, beta, eps, activation="identity"):
    """dx, dgamma, dbeta by the chain rule, one step a line, through the mean and the variance too."""
    dy, x, gamma, beta = _float64(dy, x, gamma, beta)
    count = x.size // x.shape[-1]
    _, mean, variance = batchnorm_training(x, gamma, beta, eps)
    std = np.sqrt(variance + eps)
    normal = (x - mean) / std
    du = dy * derivative(activation, gamma * normal + beta)
    dgamma = _channel_sums(du * normal)
    dbeta = _channel_sums(du)
    dnormal = du * gamma
    dvariance = _channel_sums(dnormal * (x - mean)) * (-1 / 2) * (variance + eps) ** (-3 / 2)
    dmean = -_channel_sums(dnormal) / std  # the mean inside the variance adds Σ −2(x − mean) = 0
    dx = dnormal / std + dvariance * 2 * (x - mean) / count + dmean / count
    return dx, dgamma, dbeta


def batchnorm_inference_backward(dy, x, gamma, beta, mean, variance, eps, activation="identity"):
    """dx, dgamma, dbeta when mean and variance are constants."""
    dy, x, gamma, beta, mean, variance = _float64(dy, x, gamma, beta, mean, variance)
    normal = (x - mean) / np.sqrt(variance + eps)
    du = dy * derivative(activation, gamma * normal + beta)
    return du * gamma / np.sqrt(variance + eps), _channel_sums(du * normal), _channel_sums(du)


def running(old, batch, momentum):
    """running ← m·running + (1−m)·batch."""
    old, batch = _float64(old, batch)
    return momentum * old + (1 - momentum) * batch


# --- pooling ------------------------------------------------------------------------------------------------


def global_average_pool(x):
    """(N, H, W, C) -> (N, C)."""
    (x,) = _float64(x)
    N, H, W, C = x.shape
    y = np.zeros((N, C))
    for n in range(N):
        y[n] = _channel_sums(x[n]) / (H * W)
    return y


def global_average_pool_backward(dy, x_shape):
    """dx: every pixel gets an equal share."""
    (dy,) = _float64(dy)
    dx = np.zeros(x_shape)
    for n, i, j in np.ndindex(*x_shape[:3]):
        dx[n, i, j] = dy[n] / (x_shape[1] * x_shape[2])
    return dx


def global_max_pool(x):
    """(N, H, W, C) -> (N, C): a max pool whose window is the image."""
    return max_pool(x, x.shape[1:3])[:, 0, 0]


def global_max_pool_backward(dy, x):
    """dx: all of dy to the first maximum, in the order of rows."""
    return max_pool_backward(_float64(dy)[0][:, None, None], x, x.shape[1:3])


def max_pool(x, kernel, stride=1, padding=NO_PADDING):
    """The largest number of each window; padding counts as −∞, and every window must touch the image."""
    return _max_pool(x, kernel, stride, padding)[0]


def _max_pool(x, kernel, stride, padding):
    """The pool, and for each of its numbers the input row and column it came from."""
    (x,) = _float64(x)
    kernel = pair(kernel)
    y = np.full((x.shape[0], *output_size(x.shape[1:3], kernel, pair(stride), padding), x.shape[3]), -np.inf)
    rows, columns = np.full(y.shape, -1), np.full(y.shape, -1)
    for n, p, q, _, _, i, j, inside in _taps(x.shape, kernel, stride, padding):
        if inside:
            for c in range(x.shape[3]):
                if x[n, i, j, c] > y[n, p, q, c]:  # `>`, not `>=`: the first of equals stays
                    y[n, p, q, c], rows[n, p, q, c], columns[n, p, q, c] = x[n, i, j, c], i, j
    assert (rows >= 0).all(), "a window lies in the padding alone"
    return y, rows, columns


def max_pool_backward(dy, x, kernel, stride=1, padding=NO_PADDING):
    """dx: each dy goes to the first maximum of its window."""
    (dy,) = _float64(dy)
    _, rows, columns = _max_pool(x, kernel, stride, padding)
    dx = np.zeros(x.shape)
    for n, p, q, c in np.ndindex(dy.shape):
        dx[n, rows[n, p, q, c], columns[n, p, q, c], c] += dy[n, p, q, c]
    return dx


def average_pool(x, kernel, stride=1, padding=NO_PADDING, count_padding=True):
    """The mean of each window, over its K·K places (PyTorch) or over those in the image (TensorFlow)."""
    (x,) = _float64(x)
    kernel = pair(kernel)
    places = _places(x.shape, kernel, stride, padding, count_padding)
    y = np.zeros((*places.shape, x.shape[3]))
    for n, p, q, _, _, i, j, inside in _taps(x.shape, kernel, stride, padding):
        if inside:
            y[n, p, q] += x[n, i, j] / places[n, p, q]
    return y


def average_pool_backward(dy, x_shape, kernel, stride=1, padding=NO_PADDING, count_padding=True):
    """dx."""
    (dy,) = _float64(dy)
    kernel = pair(kernel)
    places = _places(x_shape, kernel, stride, padding, count_padding)
    dx = np.zeros(x_shape)
    for n, p, q, _, _, i, j, inside in _taps(x_shape, kernel, stride, padding):
        if inside:
            dx[n, i, j] += dy[n, p, q] / places[n, p, q]
    return dx


def _places(x_shape, kernel, stride, padding, count_padding):
    """How many numbers each window's mean is taken over."""
    places = np.zeros((x_shape[0], *output_size(x_shape[1:3], kernel, pair(stride), padding)), dtype=int)
    for n, p, q, _, _, _, _, inside in _taps(x_shape, kernel, stride, padding):
        places[n, p, q] += inside or count_padding
    return places


# --- dropout and the loss -----------------------------------------------------------------------------------


def dropout(x, mask, rate):
    """y = x/(1−rate) where ``mask`` is True (kept), else 0: the mean over masks is x."""
    (x,) = _float64(x)
    return np.where(mask, x / (1 - rate), 0.0)


def dropout_backward(dy, mask, rate):
    """dx: dropout is linear in x and its own transpose."""
    return dropout(dy, mask, rate)


def softmax(logits):
    """exp(z_k) / Σ exp(z) of each row, the largest logit subtracted first so that nothing overflows."""
    (logits,) = _float64(logits)
    rows = []
    for z in logits.tolist():
        powers = [math.exp(v - max(z)) for v in z]
        rows.append([power / math.fsum(powers) for power in powers])
    return np.array(rows).reshape(logits.shape)


def softmax_cross_entropy(logits, labels, label_smoothing=0.0):
    """loss, dlogits: the mean over N of −Σ_k t_k·log softmax_k.

    With smoothing s over L classes the target is t = (1−s)·onehot + s/L, as in PyTorch.
    """
    (logits,) = _float64(logits)
    N, classes = logits.shape
    probabilities = softmax(logits)
    loss, dlogits = 0.0, np.zeros_like(logits)
    for n in range(N):
        largest = max(logits[n])
        log_sum = largest + math.log(math.fsum(math.exp(z - largest) for z in logits[n]))
        for k in range(classes):
            target = (1 - label_smoothing) * (k == labels[n]) + label_smoothing / classes
            loss -= target * (logits[n, k] - log_sum) / N
            dlogits[n, k] = (probabilities[n, k] - target) / N
    return loss, dlogits
