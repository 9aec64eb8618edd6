"""Kernels: pure functions on arrays, one operation a page.

**Letters** of the pages with weights:

    N images · H×W input · P×Q output · K kernel side · s stride · C channels in · F channels out (filters)
    x input · w weights · y output · dy, dx, dw gradients of the loss, each with the shape of its tensor
    n an image · p, q a pixel of y · i, j a pixel of x · u, v a tap · c, f channels; elsewhere v is the lanes

Other letters, and other meanings of these, are named on their page: h, w a pixel of x (pooling, average, squeeze_excite),
M the numbers of a channel (batchnorm, moments), v a velocity (optimisers), s a smoothing or a scale (loss, fake), p a
probability or a padding (dropout, augment).

MobileNet's paper writes D_K for our K, D_F for our H, M for our C, N for our F, α for ``width``, ρ for ``resolution``;
MobileNetV2's t, c, n, s stay. Arrays are NHWC, weights channel-last: standard (K, K, C, F), depthwise (K, K, C, M) with
M the depth multiplier, pointwise and dense (C, F). A MAC is one multiply-accumulate, two FLOP.

**Words** for parts of arrays, one meaning each:

| word | meaning |
|---|---|
| map | an array (N, H, W, C): for each pixel its C numbers, side by side |
| raw, finished | a map before its batch norm and activation, and after them |
| pack | the four numbers a channel that finish a raw map (page ``batchnorm``) |
| row | what lies side by side: a row of a matrix, or of an image: its W·C numbers |
| tile | what is worked on at a time: pixels of a map, mostly with all channels, in the cache; or registers (page ``tiles``) |
| part | one of PARTS shares of a pass's work, each with partial sums of its own; cut by the shapes alone |
| moments | count, mean and Σ(x − mean)² of each channel (page ``moments``) |
| packed | numbers in the order in which a product reads them; the functions ``pack…`` have nothing to do with *a pack* |
| panel | columns of a packed matrix that a product walks through together |
| vector, lane | a register's numbers, and the place of one of them (page ``vectors``) |
| word | four bytes in one lane (page ``words``) |
| grid | where the 256 numbers of eight bits stand: a scale and a zero point (page ``eight_bits``) |
| window, tap | the K×K pixels that one output pixel sees, and one of its places (u, v) |
| ring, slot | the last few rows of an image, finished and framed; a slot holds one (page ``ring``) |
| hot | just read or written, and so still in the cache |
| line of the cache | 64 bytes: what moves between memory and cache at a time |

**A page** of an operation has four parts: *what* (its docstring, with numbered equations), *the definition* (the equations
as plain loops, public and slow: ``kernels.depthwise.definition``), *how it is made fast* (row functions on vectors, then
passes: one ``prange`` over tiles or parts, which call them), *what it costs* (the closed form). Whoever stops after any of
them has learned something whole. The first two need no other page: begin anywhere, say with dense, conv, depthwise and
batchnorm. Pages that others share (vectors, tiles, maps, rows, padding, exponential, taps, ring, words) have no definition
of their own, nor have those that consist of plain loops anyway (average, concat, sgd, vector, adam, rmsprop, random, dropout,
augment, draw); inverted, folding and muon put others together. Those of the three pages quantised_… stand on eight_bits.

**Reading order** for the third part; no page needs a later one:

    vectors → tiles   their docstrings; the rest is for those who want to see LLVM
    maps → rows → padding → exponential → activations → product → moments → batchnorm → folding → pointwise → dense → taps
    → ring → depthwise → conv → pooling → average → squeeze_excite → residual → concat → loss   a net, forward and backward
    inverted                                                    inference
    eight_bits → words → quantised_product → quantised_depthwise → quantised_maps   inference on numbers of eight bits
    fake                                                        training for it
    sgd → vector → adam → rmsprop → muon                        steps of the optimisers
    random → dropout → augment → draw                           chance
    _jit      how all of them are compiled and kept
"""

from numnet.kernels.activations import CODES as CODES
from numnet.kernels.activations import activation_backward as activation_backward
from numnet.kernels.activations import activation_forward as activation_forward
from numnet.kernels.average import average_backward as average_backward
from numnet.kernels.average import average_forward as average_forward
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
