"""numnet: MobileNet from first principles in NumPy and Numba."""

from numnet._version import __version__ as __version__
