"""Kernels: pure functions on arrays, one operation a page.

One glossary of letters holds everywhere:

    N images · H×W input · P×Q output · K kernel side · s stride · C channels in · F channels out (filters)
    x input · w weights · y output · dy, dx, dw gradients of the loss, each with the shape of its tensor

MobileNet's paper writes D_K for our K, D_F for our H, M for our C, N for our F, α for ``width``, ρ for ``resolution``;
MobileNetV2's t, c, n, s stay. Arrays are NHWC, weights channel-last: standard (K, K, C, F), depthwise (K, K, C, M) with
M the depth multiplier, pointwise and dense (C, F). A MAC is one multiply-accumulate; a FLOP is half of one.

Read the pages in this order: dense → pointwise → depthwise → conv → activations → batchnorm → pooling → loss → dropout
→ sgd → muon → augment; rows, windows, product and padding when a page first mentions them; _jit when you wonder how
it can be fast.
"""

from numnet.kernels.activations import CODES as CODES
from numnet.kernels.activations import activation_backward as activation_backward
from numnet.kernels.activations import activation_forward as activation_forward
from numnet.kernels.batchnorm import batchnorm_backward as batchnorm_backward
from numnet.kernels.batchnorm import batchnorm_forward as batchnorm_forward
from numnet.kernels.conv import conv_backward as conv_backward
from numnet.kernels.conv import conv_forward as conv_forward
from numnet.kernels.dense import dense_backward as dense_backward
from numnet.kernels.dense import dense_forward as dense_forward
from numnet.kernels.depthwise import depthwise_backward as depthwise_backward
from numnet.kernels.depthwise import depthwise_forward as depthwise_forward
from numnet.kernels.dropout import dropout_backward as dropout_backward
from numnet.kernels.dropout import dropout_forward as dropout_forward
from numnet.kernels.loss import softmax as softmax
from numnet.kernels.loss import softmax_cross_entropy as softmax_cross_entropy
from numnet.kernels.pointwise import pointwise_backward as pointwise_backward
from numnet.kernels.pointwise import pointwise_forward as pointwise_forward
from numnet.kernels.pooling import global_average_backward as global_average_backward
from numnet.kernels.pooling import global_average_forward as global_average_forward
from numnet.kernels.pooling import global_max_backward as global_max_backward
from numnet.kernels.pooling import global_max_forward as global_max_forward
from numnet.kernels.pooling import max_backward as max_backward
from numnet.kernels.pooling import max_forward as max_forward
