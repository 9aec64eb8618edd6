"""What PyTorch's counting tools would print for the same net, and why they differ: identities, checked on their output.

None of them is wrong; each counts something else. With MACs as in ``cost.of``:

    fvcore                 MACs + 2 for each number that batch norm reads + 1 for each that adaptive pooling reads
    thop                   MACs + 4 for each number of batch norm + H·W + 1 for each output of an AdaptiveAvgPool2d
    PyTorch's own counter  2 · MACs: convolutions and matrix products alone
    ptflops, aten          MACs + one addition for each output number of a layer with a bias
    ptflops, pytorch       that + 2 for batch norm + 1 for ReLU6, 2 for ReLU (the module and the function inside it are
                           both counted), likewise pooling; nothing for h-swish and h-sigmoid
    torchinfo              ptflops' aten + one for each γ and β

The net is taken to be written as torchvision writes it: V2 pools with a function, MnasNet with ``mean``, GoogLeNet calls
ReLU as a function, VGG16 has an adaptive pooling where ours flattens. Nets that torchvision does not have are taken to
use modules throughout. timm's fused BatchNormAct2d escapes thop, ptflops and torchinfo, and its TensorFlow-padded
convolutions escape thop: there they print less.
"""

from math import prod

from numnet.blocks import SqueezeExcite
from numnet.blocks.unit import Unit
from numnet.layers import Activation, Dense, Flatten, GlobalAverage, MaxPool

FUNCTION_POOL, MEAN_POOL = ("mobilenet_v2",), ("mnasnet_b1", "mnasnet_keras")
FUNCTION_RELU, MEAN_SQUEEZE = ("googlenet",), ("mnasnet_a1",)


def tools(net) -> dict:
    """Name of the tool → the number that it prints for one image."""
    name = (net.config or {}).get("model")
    total, trained, numbers, biases = 0, 0, 0, 0
    relu = relu6 = pooled = adaptive = outputs = 0
    squeezes = {id(layer.children[0]) for _, layer in net.walk() if isinstance(layer, SqueezeExcite)}
    for _, layer in net.walk():
        total += sum(row.cost.macs for row in layer.cost())
        if isinstance(layer, Unit) and layer.norm is not None:
            numbers += prod(layer.output_shape)
            trained += 2 * layer.output_shape[2]
        if isinstance(layer, (Unit, Dense)) and layer.bias:
            biases += prod(layer.output_shape)
        if isinstance(layer, (Unit, Activation)):
            relu += prod(layer.output_shape) * (layer.activation == "relu")
            relu6 += prod(layer.output_shape) * (layer.activation == "relu6")
        if isinstance(layer, MaxPool):
            pooled += prod(layer.input_shape)
        if isinstance(layer, GlobalAverage):
            mean = name in (MEAN_SQUEEZE if id(layer) in squeezes else MEAN_POOL)
            if not mean:
                h, w, c = layer.input_shape
                adaptive += h * w * c
                outputs += 0 if name in FUNCTION_POOL else (h * w + 1) * c
        if isinstance(layer, Flatten) and name == "vgg16":
            adaptive += prod(layer.input_shape)
            outputs += 2 * prod(layer.input_shape)
    twice = 1 if name in FUNCTION_RELU else 2
    pools = 2 * pooled + adaptive * (1 if name in FUNCTION_POOL else 2)
    return {
        "fvcore": total + 2 * numbers + adaptive,
        "thop": total + 4 * numbers + outputs,
        "torch": 2 * total,
        "ptflops_aten": total + biases,
        "ptflops_pytorch": total + biases + 2 * numbers + twice * relu + relu6 + pools,
        "torchinfo": total + biases + trained,
    }
