"""Peak memory of activations, for any batch size, without running or allocating anything.

A training step keeps, from forward to backward, what each layer wrote (``kept``), and borrows gradient maps from the
net's workspace on the way back (``Rehearsal`` walks the same way and borrows sizes instead of arrays). Parameters,
gradients and the optimiser's state are not activations and are not counted; scratch tiles of some KiB a thread neither.
``tests/test_cost.py`` holds both against the arrays of real nets, and the sum against a process's memory.
"""

from math import prod

from numnet.blocks import Branches, Conv, Depthwise, Pointwise, Residual, Sequence, SqueezeExcite
from numnet.blocks.unit import Unit
from numnet.kernels.maps import parts_of
from numnet.kernels.pointwise import padded
from numnet.layers import Activation, AveragePool, Dense, Dropout, Flatten, GlobalAverage, GlobalMax, MaxPool
from numnet.layers.simple import activated


def peak_training(net, batch_size=1, input_gradient=False) -> int:
    """Bytes of activations, gradient maps and partial sums at the peak of a training step, the batch itself apart.

    Backward ends with everything that was kept still in place, so the peak is what is kept, what the workspace has grown
    to, and the largest array that exists for a moment only.
    """
    kept, borrowed, passing = parts_of_peak(net, batch_size, input_gradient)
    return kept + borrowed + passing


def parts_of_peak(net, batch_size=1, input_gradient=False) -> tuple:
    """Bytes kept from forward, grown in the workspace, and passing by."""
    size = net.dtype.itemsize
    kept, pending = 0, False
    for layer in net.layers:
        numbers, doubles, pending = kept_by(layer, batch_size, pending, net.dtype)
        kept += numbers * size + doubles * 8
    rehearsal = Rehearsal(batch_size)
    dx = rehearsal.through(net.layers, None, input_gradient)
    passing = max((_passing(layer, batch_size) for _, layer in net.walk()), default=0)
    if dx is not None:
        passing = max(passing, batch_size * prod(net.input_shape))  # the copy that the caller gets
    return kept, rehearsal.numbers * size, passing * size


def peak_inference(net, batch_size=1) -> int:
    """Bytes of the buffers that ``net.predict`` works in, the images included: a map lives until its last reader has run.

    For so many images at once: ``predict`` takes 256 at a time, unless its own ``batch_size`` says otherwise.
    """
    buffers = Buffers(batch_size)
    buffers.row(net.layers, buffers.make(net.input_shape))
    return buffers.numbers * net.dtype.itemsize


# ---------------------------------------------------------------------------------------------- kept from forward


def kept_by(layer, n, pending, dtype):
    """(numbers of the net's dtype, float64 numbers, whether its output is pending) for a layer and all below it.

    ``pending``: its input is a raw map that waits for its activation.
    """
    numbers = doubles = 0
    if pending and not layer.reads_pending:
        numbers, pending = n * prod(layer.input_shape), False  # the input, finished
    shape = layer.output_shape
    if isinstance(layer, Unit):
        numbers += n * prod(shape) + (0 if layer.finished else 4 * shape[2])
        weights = layer.specs["weight"].size
        if isinstance(layer, Depthwise):
            doubles += layer.parts(n) * weights
        else:
            numbers += layer.parts(n) * weights // shape[2] * padded(shape[2], dtype)
        return numbers, doubles, not layer.finished
    if isinstance(layer, SqueezeExcite):
        return numbers + n * (prod(shape) + shape[2] + 2 * (layer.squeezed + shape[2])), 0, False
    if isinstance(layer, Branches):
        numbers += n * (prod(shape) + (prod(layer.input_shape) if pending else 0))
        for child in layer.children:
            more, more_doubles, _ = kept_by(child, n, False, dtype)
            numbers, doubles = numbers + more, doubles + more_doubles
        return numbers, doubles, False
    if isinstance(layer, Sequence):
        for child in layer.children:
            more, more_doubles, pending = kept_by(child, n, pending, dtype)
            numbers, doubles = numbers + more, doubles + more_doubles
        if isinstance(layer, Residual) and layer.adds:
            return numbers + n * prod(shape), doubles, False
        return numbers, doubles, pending
    if isinstance(layer, (MaxPool, GlobalMax)):
        doubles += n * prod(shape) // 2  # the winners, int32
    if isinstance(layer, (Dense, Activation, AveragePool, GlobalAverage, MaxPool)) or (
        isinstance(layer, Dropout) and layer.rate
    ):
        numbers += n * prod(shape)
    return numbers, doubles, False


def _passing(layer, n):
    """Numbers of arrays that exist only while a layer works: a dense layer's partial sums and its gradient."""
    if isinstance(layer, Dense):
        weights = layer.specs["weight"].size
        return (1 + parts_of(n, 256)) * weights
    return 0


# ---------------------------------------------------------------------------------------------- borrowed by backward


class Rehearsal:
    """Backward with sizes instead of arrays: borrows and releases as the layers do, by the workspace's policy."""

    def __init__(self, batch_size):
        self.n, self.free, self.lent = batch_size, [], []

    @property
    def numbers(self):
        """What the workspace has grown to."""
        return sum(self.free) + sum(loan[0] for loan in self.lent)

    def borrow(self, size):
        """A loan, as a list of one: the size of the buffer that it comes from."""
        fitting = [buffer for buffer in self.free if buffer >= size]
        if fitting:
            self.free.remove(min(fitting))
            loan = [min(fitting)]
        else:
            if self.free:
                self.free.remove(max(self.free))
            loan = [size]
        self.lent.append(loan)
        return loan

    def release(self, loan):
        """Take a loan back; None and loans that were taken back already are somebody else's."""
        for i, other in enumerate(self.lent):
            if other is loan:
                del self.lent[i]
                self.free.append(loan[0])

    def through(self, layers, dy, input_gradient=True):
        """As ``backward_through``; a gradient that nobody lent is None."""
        given = dy
        for layer in reversed(layers):
            dx = self.backward(layer, dy, input_gradient or layer is not layers[0])
            if dy is not given and dx is not dy:
                self.release(dy)
            dy = dx
        return dy

    def backward(self, layer, dy, input_gradient=True):
        """The loan that holds dx, as the layer's own backward takes it."""
        n, size = self.n, prod(layer.input_shape) * self.n
        if isinstance(layer, SqueezeExcite):
            dgates = self.borrow(n * layer.output_shape[2])
            ds = self.through(layer.children[1:], dgates)
            dx = self.borrow(size)
            self.release(dgates)
            self.release(ds)
            return dx
        if isinstance(layer, Branches):
            total = None
            for child in layer.children:
                part = self.borrow(n * prod(child.output_shape))
                dx = self.backward(child, part, input_gradient)
                if dx is not part:
                    self.release(part)
                if total is None:
                    total = dx
                else:
                    self.release(dx)
            return total
        if isinstance(layer, Sequence):
            return self.through(layer.children, dy, input_gradient)
        if isinstance(layer, (Conv, Depthwise, Pointwise)):
            return self.borrow(size) if input_gradient else None
        if isinstance(layer, Flatten) or (isinstance(layer, Dropout) and not layer.rate):
            return dy
        if isinstance(layer, (Dense, Activation, AveragePool, Dropout, GlobalAverage, GlobalMax, MaxPool)):
            return self.borrow(size)
        return None  # a layer of somebody's own makes its own arrays


# ---------------------------------------------------------------------------------------------- buffers of inference


class Buffers:
    """Inference with sizes instead of arrays: maps move into free buffers, which grow to the largest map they ever hold.

    The policy and the order are the executor's (``numnet.inference``); a map is [its buffer, its readers to come].
    """

    def __init__(self, batch_size):
        self.n, self.sizes, self.free = batch_size, [], []

    @property
    def numbers(self):
        return sum(self.sizes)

    def make(self, shape):
        """A map of this shape for each image, with one reader."""
        size = self.n * prod(shape)
        fitting = [b for b in self.free if self.sizes[b] >= size] or self.free
        if fitting:
            buffer = min(fitting, key=lambda b: abs(self.sizes[b] - size))
            self.sizes[buffer] = max(self.sizes[buffer], size)
            self.free.remove(buffer)
        else:
            buffer = len(self.sizes)
            self.sizes.append(size)
        return [buffer, 1]

    def done(self, map_):
        """One reader has run."""
        map_[1] -= 1
        if map_[1] == 0:
            self.free.append(map_[0])

    def row(self, layers, x):
        """The map that layers in a row make of map x."""
        for layer, _ in activated(layers):
            x = self.through(layer, x)
        return x

    def through(self, layer, x):
        """The map that the layer makes of map x."""
        if isinstance(layer, Branches):
            y = self.make(layer.output_shape)
            x[1] += len(layer.children) - 1
            for child in layer.children:
                self.done(self.through(child, x))
            return y
        if isinstance(layer, Sequence) and not layer.cut(self.n):
            adds = isinstance(layer, Residual) and layer.adds
            if adds:
                x[1] += 1
            y = self.row(layer.children, x)
            if adds:
                self.done(x)
            return y
        if isinstance(layer, Dropout):
            return x
        y = self.make(layer.output_shape)
        self.done(x)
        return y
