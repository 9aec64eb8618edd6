"""A ring of rows: what a K×K window sees of an image, finished and between zeros.

Row p of the output needs K rows of x, from p·s − top on. Those before the image and behind it are zeros, and so are the
places left and right of each row. A *ring* is K rows of scratch that stay in the first- or second-level cache. Padded row r
lies in slot r mod K, so a new row takes the place of the one that is needed no more:

    K = 3, s = 1      slot 0    slot 1    slot 2
    output row 3:     0 x₃ 0    0 x₄ 0    0 x₅ 0         rows 3, 4, 5 of the padded image
    output row 4:     0 x₆ 0    0 x₄ 0    0 x₅ 0         only row 6 comes in, over row 3

Each row comes in once, and is finished (normalised and activated) on the way. Its zeros are written once, when the ring is
made. A row that lies in the padding altogether is one more row, of zeros. So whoever works on a ring has no borders to think
of: the depthwise convolution, forward and backward.

Cost: one load and one store for each number of x, and (K + 1)·(W + K − 1)·C numbers of cache.
"""

from typing import NamedTuple

import numpy as np

from numnet.kernels._jit import row
from numnet.kernels.batchnorm import normalise_activate
from numnet.kernels.rows import copy, line_up, zero_row


class Ring(NamedTuple):
    """The last rows of a map, between zeros."""

    flat: np.ndarray  # its rows, and one row of zeros
    length: int  # of a row
    at: np.ndarray  # where the rows of the present window begin
    next: np.ndarray  # (1,) the row that comes in next, counted from the top of the padding
    copies: int  # of each channel, M
    # With M > 1: a row of x before it is copied M times, or a row of dx before its M copies are added
    spare: np.ndarray


@row(inline=True)
def ring_of(rows, length, first, size, copies, spare, like):
    """A ring of rows of ``length`` numbers, each on a line of the cache: zeros but for the ``size`` from ``first``."""
    length = (length + 15) // 16 * 16
    flat = line_up((rows + 1) * length, like)
    for r in range(rows):
        zero_row(flat[r * length : r * length + first])
        zero_row(flat[r * length + first + size : (r + 1) * length])
    zero_row(flat[rows * length :])
    return Ring(flat, length, np.empty(rows, np.int64), np.zeros(1, np.int64), copies, line_up(spare, like))


@row(inline=True)
def image_ring(image, copies, window, rows, line):
    """A ring for ``rows`` rows of an image (H, W·C), wide enough for its padding and for all windows of a row of y.

    line: that row, see the page ``taps``.
    """
    first, size = window.left * line.channels, image.shape[1] * copies
    reach = ((line.pixels - 1) * window.stride + window.side) * line.channels
    spare = image.shape[1] if copies > 1 else 0
    return ring_of(rows, max(first + size, reach), first, size, copies, spare, image)


@row(inline=True)
def see(ring, image, source, window, outputs, p):
    """Bring into the ring what the windows of output row p need of an image (H, W·C), finished, and point ``at`` to it.

    outputs: C·M, the numbers of a pixel in the ring.
    """
    rows, first, height = ring.at.size, p * window.stride, image.shape[0]
    for r in range(max(first, ring.next[0]), first + rows):
        if window.top <= r < window.top + height:
            x = image[r - window.top]
            place = ring.flat[r % rows * ring.length + window.left * outputs :]
            out = ring.spare if ring.spare.size else place[: x.size]
            if source.pack.size:
                normalise_activate(x, source, out)
            else:
                copy(x, out)
            if ring.spare.size:
                for i in range(x.size * ring.copies):
                    place[i] = out[i // ring.copies]
    ring.next[0] = first + rows
    for u in range(rows):
        r = first + u
        ring.at[u] = (r % rows if window.top <= r < window.top + height else rows) * ring.length
