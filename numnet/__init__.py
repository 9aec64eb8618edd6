"""numnet: MobileNet from first principles in NumPy and Numba.

    net = numnet.build("mobilenet_v1", width=0.25, resolution=32, classes=10, strides="cifar")
    logits = net.forward(x, training=True)
    loss, dlogits = numnet.softmax_cross_entropy(logits, labels)
    net.backward(dlogits)

The kernels' pages, in reading order: ``help(numnet.kernels)``.
"""

from importlib import import_module

from numnet import kernels as kernels
from numnet._version import __version__ as __version__
from numnet.errors import NumnetError as NumnetError
from numnet.gradients import check_gradients as check_gradients
from numnet.kernels.loss import softmax_cross_entropy as softmax_cross_entropy
from numnet.loading import load as load
from numnet.models import build as build
from numnet.models import describe as describe
from numnet.models import models as models
from numnet.models.parts import with_channels as with_channels
from numnet.models.parts import with_head as with_head
from numnet.net import Net as Net

_LATER = {
    "fit": "numnet.training.loop",
    "linear_probe": "numnet.probe",
    "load_weights": "numnet.weights",
}  # what brings more than NumPy and Numba with it is loaded when asked for


def __getattr__(name):
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name in ("cores", "data", "parallel", "plotting", "training", "weights"):
        return import_module(f"numnet.{name}")
    raise AttributeError(f"module 'numnet' has no attribute {name!r}")
