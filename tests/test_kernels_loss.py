"""Softmax cross-entropy with label smoothing."""

import numpy as np
import oracle
import pytest
from kernel_shapes import DIFFERENCES, ORACLE, TORCH, both_dtypes, close, differences, draw

from numnet.kernels import loss as page
from numnet.kernels import softmax, softmax_cross_entropy

SHAPES = [(1, 1), (1, 2), (5, 10), (3, 1000), (130, 3)]
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])


def arrays(shape, dtype="float64"):
    (logits,) = draw(shape, dtype=dtype)
    return 3 * logits, np.random.default_rng(0).integers(0, shape[1], shape[0])


@each_smoothing
@each_shape
def test_against_the_oracle(shape, smoothing):
    logits, labels = arrays(shape)
    loss, dlogits = softmax_cross_entropy(logits, labels, smoothing)
    want_loss, want_dlogits = oracle.softmax_cross_entropy(logits, labels, smoothing)
    assert isinstance(loss, float)
    if shape[1] == 1:  # one class: no surprise and nothing to learn
        assert abs(loss) <= 1e-15 and np.abs(dlogits).max() <= 1e-15
        return
    close(loss, want_loss, ORACLE, "loss")
    close(dlogits, want_dlogits, ORACLE, "dlogits")
    close(softmax(logits), oracle.softmax(logits), ORACLE, "softmax")


@both_dtypes
@each_smoothing
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_against_the_definition(shape, smoothing, dtype):
    logits, labels = arrays(shape, dtype)
    loss, dlogits = softmax_cross_entropy(logits, labels, smoothing)
    want_loss, want_dlogits = page.definition(logits, labels, smoothing)
    bound = {"float64": ORACLE, "float32": 1e-6}[dtype]  # the definition computes in the dtype of the logits
    close(loss, want_loss, bound, "loss")
    close(dlogits, want_dlogits, bound, "dlogits")


def test_the_logarithm():
    """Two or three last bits of what NumPy's says."""
    spread = 1000 ** np.random.default_rng(0).uniform(size=1000)
    for x in [1 + 2.0**-52, 2.0, np.sqrt(0.5), 1e300, *spread]:
        assert abs(page.logarithm.py_func(x) / np.log(x) - 1) <= 5e-16, x
    assert page.logarithm.py_func(1.0) == 0
    assert np.isnan(page.logarithm.py_func(float("nan")))


@both_dtypes
@each_smoothing
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_against_pytorch(shape, smoothing, dtype, torch):
    logits, labels = arrays(shape, dtype)
    tlogits = torch.tensor(logits, requires_grad=True)
    tloss = torch.nn.functional.cross_entropy(tlogits, torch.tensor(labels), label_smoothing=smoothing)
    tloss.backward()
    loss, dlogits = softmax_cross_entropy(logits, labels, smoothing)
    assert dlogits.dtype == softmax(logits).dtype == dtype
    close(loss, tloss.item(), TORCH[dtype], "loss")
    close(dlogits, tlogits.grad.numpy(), TORCH[dtype], "dlogits")
    close(softmax(logits), tlogits.detach().softmax(dim=1).numpy(), TORCH[dtype], "softmax")


@each_smoothing
def test_against_finite_differences(smoothing):
    logits, labels = arrays((3, 5))
    _, dlogits = softmax_cross_entropy(logits, labels, smoothing)
    got = differences(lambda: softmax_cross_entropy(logits, labels, smoothing)[0], logits)
    close(dlogits, got, DIFFERENCES)


@both_dtypes
def test_a_net_that_knows_nothing_loses_log_f(dtype):
    for classes in (2, 10, 1000):
        loss, dlogits = softmax_cross_entropy(np.full((4, classes), 7, dtype), np.arange(4) % classes)
        close(loss, np.log(classes), 1e-14)
        assert np.abs(dlogits.sum(axis=1)).max() < 1e-6


@both_dtypes
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_huge_logits(size, dtype):
    """e^1e4 is no number; the loss is one: how far the label lies below the largest logit."""
    logits = np.array([[size, 0, -size], [-size, 0, size], [0, 0, 0]], dtype)
    loss, dlogits = softmax_cross_entropy(logits, np.array([0, 0, 0]))
    close(loss, (0 + 2 * size + np.log(3)) / 3, 1e-7)
    close(dlogits * 3, [[0, 0, 0], [-1, 0, 1], [-2 / 3, 1 / 3, 1 / 3]], 1e-7)
    close(softmax(logits), [[1, 0, 0], [0, 0, 1], [1 / 3, 1 / 3, 1 / 3]], 1e-7)


def test_denormal_logits_are_equal_logits():
    loss, _ = softmax_cross_entropy(np.array([[1e-310, 0, -1e-310]]), np.array([1]))
    close(loss, np.log(3), 1e-15)


@pytest.mark.parametrize("smoothing, want", [(0.0, np.log1p(np.exp(-1))), (0.1, np.inf)])
def test_a_class_that_is_masked(smoothing, want):
    """A logit of −∞ has probability 0. Without smoothing nothing is asked of that class; with it no finite loss will do."""
    logits, labels = np.array([[1, 2, -np.inf]]), np.array([1])
    loss, dlogits = softmax_cross_entropy(logits, labels, smoothing)
    assert loss == pytest.approx(want, rel=1e-15)
    if not smoothing:
        close(dlogits, [[1 / (1 + np.e), np.e / (1 + np.e) - 1, 0]], 1e-15)
        assert page.definition(logits, labels, smoothing)[0] == pytest.approx(want, rel=1e-15)


def test_nan_is_not_hidden():
    logits, labels = arrays((4, 3))
    logits[2, 1] = np.nan
    loss, dlogits = softmax_cross_entropy(logits, labels)
    assert np.isnan(loss)
    assert np.isnan(dlogits[2]).all() and np.isfinite(dlogits[[0, 1, 3]]).all()


@pytest.mark.parametrize(
    "labels", [np.array([2, 0], np.uint8), np.array([2, 0], np.int32), [2, 0], (2, 0)], ids=repr
)
def test_labels_of_any_integer_kind(labels):
    logits, _ = arrays((2, 3))
    got, want = softmax_cross_entropy(logits, labels), softmax_cross_entropy(logits, np.array([2, 0]))
    assert got[0] == want[0] and (got[1] == want[1]).all()
    strided = np.array([2, 7, 0, 7])[::2]
    assert softmax_cross_entropy(logits, strided)[0] == want[0]


@pytest.mark.parametrize(
    "labels, message",
    [
        (np.array([0, 3]), r"labels: expected 0 to 2, got 0 to 3"),
        (np.array([-1, 0]), r"labels: expected 0 to 2, got -1 to 0"),
        (np.array([0, 1, 2]), r"labels: expected integers of shape \(2,\), got int64 \(3,\)"),
        (np.array([[0], [1]]), r"labels: expected integers of shape \(2,\), got int64 \(2, 1\)"),
        (np.array([0.0, 1.0]), r"labels: expected integers of shape \(2,\), got float64 \(2,\)"),
        (np.array([True, False]), r"labels: expected integers of shape \(2,\), got bool \(2,\)"),
    ],
)
def test_wrong_labels(labels, message):
    """Numba checks no index: a label out of range would read foreign memory."""
    with pytest.raises(ValueError, match=message):
        softmax_cross_entropy(np.zeros((2, 3)), labels)


@pytest.mark.parametrize("smoothing", [1.0, -0.1, np.nan])
def test_wrong_smoothing(smoothing):
    with pytest.raises(ValueError, match="label_smoothing: expected 0 ≤ s < 1, got"):
        softmax_cross_entropy(np.zeros((2, 3)), np.array([0, 1]), smoothing)


def test_an_empty_batch_has_no_loss():
    with pytest.raises(ValueError, match="empty batch"):
        softmax_cross_entropy(np.empty((0, 3)), np.empty(0, int))
    assert softmax(np.empty((0, 3))).shape == (0, 3)


def test_no_classes():
    with pytest.raises(ValueError, match=r"labels|logits"):
        softmax_cross_entropy(np.empty((2, 0)), np.array([0, 0]))
