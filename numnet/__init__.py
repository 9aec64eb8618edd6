"""numnet: MobileNet from first principles in NumPy and Numba.

    net = numnet.build("mobilenet_v1", width=0.25, resolution=32, classes=10, strides="cifar")
    logits = net.forward(x, training=True)
    loss, dlogits = numnet.softmax_cross_entropy(logits, labels)
    net.backward(dlogits)

A table of contents; ``help(numnet.build)`` and so on say more.

A net
    models()                  the names of the nets
    build(model, ...)         a net with parameters; describe(model, ...) the same without arrays, for its cost
    load(path)                the net of a checkpoint or a run directory, as numnet wrote it
    weights.import_file(...)  the net in a file of Keras, PyTorch or PaddleClas
    load_weights(net, file)   the numbers of such a file into a net of your own settings
    Net                       net.forward, backward, predict, features, maps, params, grads, cost, save, resize, freeze

Nets as parts
    with_head(net, classes)   the same body under a new classifier; 0 classes: without one
    with_channels(net, n)     the same net for images of n channels
    layers, blocks            the pieces of a net of one's own: Net([...], input_shape)

Learning
    softmax_cross_entropy     the loss and its gradient
    fit(net, data, ...)       a training; `numnet train` on the command line
    linear_probe(net, data)   what a net's features know of other classes, in seconds
    check_gradients(net, x)   is every backward the derivative of its forward?
    data                      data.load(name or folder), data.batches, presets, scalings

Beyond
    kernels                   pure functions on arrays, one operation a page, in reading order
    cost                      what a net costs, in closed form
    weights                   from and to other frameworks: export_onnx, export_torch
    plotting, parallel, cores figures; many processes (MPI); how many threads
    NumnetError               what is raised, in one line, for anything that a user can get wrong
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from numnet import cores as cores  # before all that imports Numba
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

if TYPE_CHECKING:  # what is loaded when asked for, as a type checker sees it
    from numnet import blocks as blocks
    from numnet import cost as cost
    from numnet import data as data
    from numnet import layers as layers
    from numnet import parallel as parallel
    from numnet import plotting as plotting
    from numnet import training as training
    from numnet import weights as weights
    from numnet.probe import linear_probe as linear_probe
    from numnet.training.loop import fit as fit
    from numnet.weights import load_weights as load_weights

# What brings more than NumPy and Numba with it is loaded only when asked for
_LATER = {"fit": "numnet.training.loop", "linear_probe": "numnet.probe", "load_weights": "numnet.weights"}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    if name in ("data", "parallel", "plotting", "training", "weights"):
        return import_module(f"numnet.{name}")
    raise AttributeError(f"module 'numnet' has no attribute {name!r}")
