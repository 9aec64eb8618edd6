"""What an operation costs, in closed form: the tuple that every kernel page's ``*_cost`` returns."""

from typing import NamedTuple


class Cost(NamedTuple):
    """Multiply-accumulates and sizes of one operation on one batch. One MAC = one multiplication and one addition.

    ``macs``, ``dx_macs``, ``dw_macs``   MACs of the forward pass and of the two gradients; padding taps counted,
                                         as the papers count. Zero where an operation has no products to sum.
    ``elementwise``                      numbers that pass through normalisation, activation or pooling in forward
    ``params``                           trainable numbers
    ``buffers``                          numbers that are kept but not trained (running statistics)
    ``inputs``, ``outputs``              numbers read and written by the forward pass, parameters aside
    """

    macs: int = 0
    dx_macs: int = 0
    dw_macs: int = 0
    elementwise: int = 0
    params: int = 0
    buffers: int = 0
    inputs: int = 0
    outputs: int = 0
