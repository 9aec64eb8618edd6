"""Layers: parameters, gradients, buffers, forward, backward and cost around the kernels; made from shapes alone."""

from numnet.layers.layer import Layer as Layer
from numnet.layers.simple import Activation as Activation
from numnet.layers.simple import AveragePool as AveragePool
from numnet.layers.simple import Dense as Dense
from numnet.layers.simple import Dropout as Dropout
from numnet.layers.simple import Flatten as Flatten
from numnet.layers.simple import GlobalAverage as GlobalAverage
from numnet.layers.simple import GlobalMax as GlobalMax
from numnet.layers.simple import MaxPool as MaxPool
