"""Blocks that hold units in a row, and the depthwise-separable block of MobileNetV1."""

from numnet.blocks.unit import Depthwise, Pointwise
from numnet.kernels import inverted
from numnet.layers.layer import Layer, backward_through, hand


class Sequence(Layer):
    """Layers one after another; the output of each is the input of the next."""

    kind = "sequence"
    reads_pending = True

    def __init__(self, *children, name=None):
        super().__init__(name)
        self.children = name_children(children)

    def connect(self, shape):
        self.input_shape = tuple(shape)
        for child in self.children:
            shape = child.connect(shape)
        self.output_shape = tuple(shape)
        return self.output_shape

    def forward(self, x, training):
        for child in self.children:
            x = hand(child, x, training)
        return x

    def backward(self, dy, input_gradient=True):
        return backward_through(self.children, dy, input_gradient)

    def cut(self, images):
        """Tiles (images, rows) in which inference runs [expand,] depthwise[, squeeze-excite], project in one pass.

        None: step by step. See the page ``inverted``.
        """
        kinds = [child.kind for child in self.children]
        expands, squeezes = kinds[:1] == ["pointwise"], "squeeze-excite" in kinds
        if kinds != ["pointwise"] * expands + ["depthwise"] + ["squeeze-excite"] * squeezes + ["pointwise"]:
            return None
        depthwise = self.children[int(expands)]
        if depthwise.multiplier > 1:
            return None
        shape, rows = depthwise.input_shape, depthwise.output_shape[0]
        return inverted.cut_of(images, shape, depthwise.kernel, depthwise.stride, rows, squeezes)

    def cost(self):
        return []


def name_children(children):
    """Give each nameless layer the name of its kind, numbered where there are several; refuse double names."""
    kinds = [child.kind.replace(" ", "_") for child in children]
    counts = {}
    for child, kind in zip(children, kinds):
        if child.name is None:
            counts[kind] = counts.get(kind, 0) + 1
            child.name = f"{kind}{counts[kind]}" if kinds.count(kind) > 1 else kind
    names = [child.name for child in children]
    for name in names:
        if not isinstance(name, str) or not name or set(name) & set("./"):
            raise ValueError(f"layers: expected a name of letters without . and /, got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"layers: two are named {name!r}; expected a name of its own for each")
    return tuple(children)


class Separable(Sequence):
    """MobileNetV1's block: depthwise K×K, then pointwise, each a unit (Howard et al. 2017, figure 3, right)."""

    kind = "separable"

    def __init__(
        self,
        filters,
        stride=1,
        *,
        kernel=3,
        multiplier=1,
        activation="relu6",
        padding="same",
        norm=None,
        name=None,
    ):
        super().__init__(
            Depthwise(
                kernel, stride, padding, multiplier, activation=activation, norm=norm, name="depthwise"
            ),
            Pointwise(filters, activation=activation, norm=norm, name="pointwise"),
            name=name,
        )
