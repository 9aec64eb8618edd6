"""A layer of one's own, as layers/layer.py shows it: what the tests of nets and of gradients build with."""

from numnet.layers import Layer


class Scale(Layer):
    """y = w·x, for one w a channel."""

    kind = "scale"

    def connect(self, shape):
        self.needs("weight", (shape[-1],), role="gamma")
        return super().connect(shape)

    def forward(self, x, training):
        self.x = x
        return x * self.params["weight"]

    def backward(self, dy, input_gradient=True):
        self.grads["weight"][:] = (dy * self.x).reshape(-1, self.x.shape[-1]).sum(0)
        return dy * self.params["weight"]
