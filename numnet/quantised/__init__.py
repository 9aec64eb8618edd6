"""Nets in eight bits: made from trained ones, checked layer by layer, run on whole numbers alone.

    whole = numnet.quantised.quantise(net, images)      # images as the net takes them, some hundred
    whole.predict(x)                                    # logits, like net.predict
    whole.save("net8.safetensors"); numnet.load("net8.safetensors")
    print(numnet.quantised.report(net, whole, images))  # ranges, noise, and which layers hurt most
    net.fake = numnet.quantised.FakeQuantised.of(net, images)   # from here on net is trained for eight bits

The arithmetic: ``numnet.kernels.eight_bits``; how it is made fast: ``quantised_product``, ``quantised_depthwise`` and
``quantised_maps`` beside it.
"""

from numnet.quantised.make import quantise as quantise
from numnet.quantised.net import QuantisedNet as QuantisedNet
from numnet.quantised.report import report as report
from numnet.quantised.trainable import FakeQuantised as FakeQuantised
