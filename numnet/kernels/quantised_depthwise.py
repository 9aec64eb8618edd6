"""The depthwise convolution in eight bits: four taps at once.

With the equations of the page ``eight_bits``, for each channel c by itself (x of bytes, w of int8, y of bytes):

    sum[p, q, c] = Σ_uv x[i, j, c] · w[u, v, c]         (3), without the bias and the zero point of x: these are in c (13)
    y = clip((sum · m + c) >> shift, low, high)         (6)
    y = table[y]                                        (7), where an activation follows that does not only cut

The definition is ``eight_bits.definition_depthwise``; this pass has one filter a channel.

**Words of neighbours.** There is no sum over channels. So the four bytes of a word are four *taps* side by side in a row of
the window, of one channel: the word of pixel j holds the pixels j, j + 1, j + 2 and j + 3, and meets a word of four weights.
A row of the window takes ⌈K / 4⌉ words, four pixels apart; what the last one has beyond the K taps meets weights of 0. That
makes 3 dots for 3×3 and 10 for 5×5, where floats need 9 and 25 fma.

**Put together once.** The words of an image's row lie as [word][channel] in a tile that stays in the second-level cache. They
serve all K rows of the window, and all output rows that see them. Each word comes from the one before by ``slide``: the
pixels that have gone leave at the bottom, those that are new come in on top, a vector of channels at a time:

    stride 1, left 1:   word 0:  z  x₀ x₁ x₂        z: the zero point, which stands for the pixels beside the image
                        word 1:  x₀ x₁ x₂ x₃        x₃ is new

Beside the image, and above and below it, words are full of the zero point. So no border is a special case.

**Which words are needed.** Output pixel q needs the words of the pixels q·s − left, q·s − left + 4, … If the stride s divides
4, all of these lie a multiple of s behind pixel −left: only every s-th word is made. Else, as with stride 3, all are. The
pixels from one word to the next are ``apart``: s, or 1.

**Pixels in registers.** PIXELS sums of one vector of channels stay in registers while the words of a window go by.

**Same bits.** Whole numbers: any order, any lanes, any number of threads, any processor.

MACs: those of the float layer, N·P·Q·K·K·C. Words take 4 / ``apart`` times as many bytes as the numbers of their row.
"""

from typing import NamedTuple

import numpy as np
from numba import prange

from numnet.kernels._jit import kernel, row, run
from numnet.kernels.eight_bits import NO_TABLE, Fixed, corrected
from numnet.kernels.maps import Window, begin_of, share, tile_height, vectors_of
from numnet.kernels.rows import line_up, replace
from numnet.kernels.tiles import repeat
from numnet.kernels.vectors import lanes
from numnet.kernels.words import (
    add_taps,
    load_words,
    narrow_tile,
    rescale_tile,
    slide,
    spread,
    store_words,
    widen,
    zero,
    zeros,
)

CHANNELS = 32  # of a tile, at most: two vectors of 16 lanes. Tiles are near-equal, so each has 16 at least: one vector
# Pixels of an output row whose sums are in registers. Of rows of 7 pixels (3×3 taps, one core of a Zen 4) a number takes
# 0.67 ns with 6, 0.76 with 4 and 0.77 with 8; of rows of 28 and of 32 pixels 0.36 to 0.41 with any of 4 to 14.
PIXELS = 6
WORDS = 2**18  # bytes of a tile's words, about: 256 KiB, which a second-level cache holds


class Packed(NamedTuple):
    """Weights as words, as ``pack`` leaves them, and what follows a sum."""

    words: np.ndarray  # int8: [row of the window][word][channel][4 taps]
    side: int  # of the window, K
    fours: int  # words for a row of the window, ⌈K / 4⌉
    channels: int
    # A Fixed for sums of bytes as they are, (13) is done. Field by field, since Numba's prange takes no tuple within a tuple.
    m: np.ndarray
    c: np.ndarray
    shift: np.ndarray
    low: int
    high: int
    zero: int  # of x
    table: np.ndarray  # (256,), or NO_TABLE
    lanes: np.integer


class Cut(NamedTuple):
    """How large a tile is, at most."""

    rows: int  # of y
    channels: int


class WordRow(NamedTuple):
    """A row of an image and the words that are made of it, in the channels of a tile."""

    pixels: int  # of the image; 0 where the row lies above or below it
    left: int  # pixels before the first one: word 0 is that of pixel −left
    words: int  # of each channel
    apart: int  # pixels from one word to the next
    step: int  # numbers of x from one pixel to the next
    channels: int  # of the tile


class Channels(NamedTuple):
    """The channels of a tile."""

    first: int
    count: int


class Distances(NamedTuple):
    """Bytes between the words of a tile."""

    row: int  # from an image row to the next
    pixel: int  # from the word of an output pixel to that of the next
    four: int  # from the word of a pixel to that of four pixels on


def pack(w, zero, fixed: Fixed, table=NO_TABLE) -> Packed:
    """Weights ready for ``depthwise``: w (K, K, C) int8.

    zero: of x; fixed: of the layer, as ``fixed_of`` gives it; table: (256,) uint8, equation (7). Raises NumnetError where
    sums may leave 32 bits.
    """
    side, channels = w.shape[1:]
    fours = (side + 3) // 4
    padded = np.zeros((side, fours * 4, channels), np.int8)
    padded[:, :side] = w
    words = padded.reshape(side, fours, 4, channels).transpose(0, 1, 3, 2)
    fixed = corrected(fixed, w.reshape(-1, channels), zero)
    flat = np.ascontiguousarray(words).reshape(-1)
    return Packed(flat, side, fours, channels, *fixed, int(zero), table, lanes(channels, np.float32))


# ---------------------------------------------------------------------------------------------- words of a row


@row
def slide_over(word, x, at, line, first, last, outside, v):
    """The word after the pixels first … last − 1 have come in; ``outside``: the zero point in all lanes."""
    for j in range(first, last):
        if 0 <= j < line.pixels:
            word = slide(word, widen(x, at + j * line.step, v))
        else:
            word = slide(word, outside)
    return word


@row
def words_of_row(x, at, line, zero_x, out, v):
    """out [word][channel]: word k holds the pixels j … j + 3 from j = k·apart − left on. x: flat; pixel 0 begins at ``at``.

    Word k ends before pixel k·apart − left + 4, and the last ``apart`` of its pixels are new. Words low … high − 1 are those
    whose new pixels all lie inside of the image:

        first new pixel  k·apart − left + 4 − apart ≥ 0          k ≥ (left − 4 + apart) / apart, rounded up:   low
        last new pixel   k·apart − left + 3 ≤ pixels − 1         k ≤ (pixels − 4 + left) / apart, rounded down: high − 1

    With 8 pixels, left 1 and apart 1: low 0, since word 0 ends with pixel 2; high 6, since word 5 ends with pixel 7.
    Strides of nets are 1 and 2, and so is ``apart``: these two have loops that ask nothing. Stride 4 goes the slow way.
    """
    apart, outside = line.apart, spread(zero_x, v)
    low, high = 0, 0
    if line.pixels > 0 and apart <= 2:
        low = min(max((line.left - 4 + 2 * apart - 1) // apart, 0), line.words)
        high = min(max((line.pixels - 4 + line.left) // apart + 1, low), line.words)
    for i in range(vectors_of(line.channels, v)):
        c = begin_of(i, line.channels, v)
        place, new = at + c, 4 - apart - line.left  # the first new pixel of word 0
        word = slide_over(zero(v), x, place, line, -line.left, new, outside, v)
        for k in range(low):
            word = slide_over(word, x, place, line, new + k * apart, new + (k + 1) * apart, outside, v)
            store_words(out, (k * line.channels + c) * 4, word)
        here = place + (new + low * apart) * line.step
        if apart == 1:
            for k in range(low, high):
                word = slide(word, widen(x, here, v))
                store_words(out, (k * line.channels + c) * 4, word)
                here += line.step
        elif apart == 2:
            for k in range(low, high):
                word = slide(slide(word, widen(x, here, v)), widen(x, here + line.step, v))
                store_words(out, (k * line.channels + c) * 4, word)
                here += 2 * line.step
        for k in range(high, line.words):
            word = slide_over(word, x, place, line, new + k * apart, new + (k + 1) * apart, outside, v)
            store_words(out, (k * line.channels + c) * 4, word)


# ---------------------------------------------------------------------------------------------- sums


@row
def sum_pixels(tile, words, at, d, b, f, y, to):
    """Output pixels side by side, as many as the tile has, in the channels f, f + 1, … of one vector; the tile holds zeros.

    at: where the first pixel's words begin, those of channel f; d: Distances; to: where y holds channel 0 of that pixel.
    """
    for u in range(b.side):
        for g in range(b.fours):
            weights = load_words(b.words, ((u * b.fours + g) * b.channels + f) * 4, b.lanes)
            tile = add_taps(tile, words, at + u * d.row + g * d.four, d.pixel, weights)
    narrow_tile(rescale_tile(tile, b, (f,)), y, to, b.channels, (f,))


@row
def sum_row(words, at, d, b, channels, y, to, pixels):
    """The ``pixels`` of an output row in the channels of a tile; then the table, while they are hot.

    at: where the words of the row's windows begin; to: where y holds the row's first number.
    """
    for i in range(vectors_of(channels.count, b.lanes)):
        c, q = begin_of(i, channels.count, b.lanes), 0
        f, begin = channels.first + c, zeros(1, 1, b.lanes)
        while pixels - q >= PIXELS:
            here = at + q * d.pixel + 4 * c
            sum_pixels(repeat(begin, PIXELS), words, here, d, b, f, y, to + q * b.channels)
            q += PIXELS
        while q < pixels:
            sum_pixels(begin, words, at + q * d.pixel + 4 * c, d, b, f, y, to + q * b.channels)
            q += 1
    if b.table.size:
        for q in range(pixels):
            f = to + q * b.channels + channels.first
            replace(y[f : f + channels.count], b.table)  # (7)


# ---------------------------------------------------------------------------------------------- the pass


@kernel
def _depthwise(x, window, b, y, cut):
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    (images, p, q, channels), (h, w) = y.shape, x.shape[1:3]
    apart = window.stride if 4 % window.stride == 0 else 1
    words = ((q - 1) * window.stride + 4 * b.fours - 4) // apart + 1  # of each channel in an image's row
    # Tiles of an image
    down, across = (p + cut.rows - 1) // cut.rows, (channels + cut.channels - 1) // cut.channels
    for tile in prange(images * down * across):  # each tile writes its own rows and channels of y
        n, first = tile // (down * across), tile // across % down * cut.rows
        # Tiles do not overlap: what one has looked up in the table, the other would look up again.
        begin, end = share(tile % across, across, channels)
        own, done = Channels(begin, end - begin), min(cut.rows, p - first)
        row_ = words * own.count * 4
        made = line_up(((cut.rows - 1) * window.stride + b.side) * row_, flat_x)
        for k in range((done - 1) * window.stride + b.side):
            i = first * window.stride - window.top + k
            pixels, at = (w, (n * h + i) * w * channels + begin) if 0 <= i < h else (0, 0)
            line = WordRow(pixels, window.left, words, apart, channels, own.count)
            words_of_row(flat_x, at, line, b.zero, made[k * row_ : (k + 1) * row_], b.lanes)
        d = Distances(row_, window.stride // apart * own.count * 4, 4 // apart * own.count * 4)
        for k in range(done):
            to = ((n * p + first + k) * q) * channels
            sum_row(made, k * window.stride * row_, d, b, own, flat_y, to, q)


def depthwise(x, packed: Packed, window: Window, y):
    """y (N, P, Q, C) uint8 of x (N, H, W, C) uint8, one filter a channel: (3), (6) and the table. Returns y.

    Contiguous; nothing is checked.
    """
    return run(depthwise_step, x, packed, window, y)


def depthwise_step(x, packed, window, y):
    """(kernel, arguments) of ``depthwise``, for a plan: neither map is empty."""
    channels = min(CHANNELS, y.shape[3])
    row_ = (y.shape[2] * window.stride + 4) * channels * 4
    rows = max(1, (WORDS // row_ - window.side) // window.stride + 1)
    others = len(y) * -(-y.shape[3] // channels)
    return _depthwise, (x, window, packed, y, Cut(tile_height(y.shape[1], rows, others), channels))
