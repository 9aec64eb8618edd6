"""Random numbers from a counter: the same question always has the same answer.

A generator has a state, and whoever draws first changes what the next one gets; with threads, with a resumed run
or with several machines the order of drawing is nobody's to know. Here a random number is a pure function of four
integers — seed, purpose, step, index — so dropout can ask for the mask of element 17 of step 300 from any thread,
and a resumed run needs no state at all.

(1)  mix(z):  z ^= z >> 30,  z *= A,  z ^= z >> 27,  z *= B,  z ^= z >> 31         every bit of z moves every other
(2)  hash(seed, purpose, step, index) = mix(index + G·mix(step + G·mix(purpose + G·mix(seed + G))))
(3)  uniform = (hash >> 11) · 2⁻⁵³                                                  in [0, 1)

Equation (1) is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014), G the odd integer nearest 2⁶⁴/φ. All arithmetic is modulo 2⁶⁴.
"""

import operator

import numpy as np

from numnet.kernels._jit import kernel, row

# What a number is drawn for. Two purposes never see the same numbers, whatever the seed.
INIT, DROPOUT, SHUFFLE, AUGMENT, SHAPES, SPLIT = 1, 2, 3, 4, 5, 6

_G = np.uint64(0x9E3779B97F4A7C15)
_A = np.uint64(0xBF58476D1CE4E5B9)
_B = np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@row
def mix(z):
    """Equation (1): a bijection of the 64-bit integers in which every input bit flips half of the output bits."""
    z = (z ^ (z >> _30)) * _A
    z = (z ^ (z >> _27)) * _B
    return z ^ (z >> _31)


@row
def hash64(seed, purpose, step, index):
    """Equation (2): 64 random bits for four integers, as ``uint64``."""
    z = mix(np.uint64(seed) + _G)
    z = mix(np.uint64(purpose) + _G * z)
    z = mix(np.uint64(step) + _G * z)
    return mix(np.uint64(index) + _G * z)


@row
def uniform(seed, purpose, step, index):
    """Equation (3): a float64 in [0, 1)."""
    return np.float64(hash64(seed, purpose, step, index) >> _11) * 2.0**-53


@kernel(parallel=False)
def _uniforms(seed, purpose, step, count):
    out = np.empty(count)
    for i in range(count):
        out[i] = uniform(seed, purpose, step, i)
    return out


def uniforms(seed: int, purpose: int, step: int, count: int) -> np.ndarray:
    """``count`` numbers in [0, 1), float64: element i is ``uniform(seed, purpose, step, i)``."""
    key = (operator.index(seed), purpose, operator.index(step))
    with np.errstate(over="ignore"):  # only matters as plain Python; compiled integers wrap silently
        return _uniforms(*key, count)


def normals(seed: int, purpose: int, step: int, count: int) -> np.ndarray:
    """``count`` standard normal numbers, float64 (Box and Muller 1958): r = √(−2 ln u), r·cos 2πv and r·sin 2πv."""
    half = (count + 1) // 2
    uv = uniforms(seed, purpose, step, 2 * half)
    radius, angle = np.sqrt(-2.0 * np.log1p(-uv[:half])), 2.0 * np.pi * uv[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def permutation(seed: int, purpose: int, step: int, count: int) -> np.ndarray:
    """A random order of ``range(count)``, int64: the order that sorts ``count`` random numbers."""
    return np.argsort(uniforms(seed, purpose, step, count), kind="stable")
