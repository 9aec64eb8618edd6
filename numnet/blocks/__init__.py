"""Blocks: conv–BN–activation units, and what the papers build of them."""

from numnet.blocks.residual import Branches as Branches
from numnet.blocks.residual import InvertedResidual as InvertedResidual
from numnet.blocks.residual import Residual as Residual
from numnet.blocks.residual import SqueezeExcite as SqueezeExcite
from numnet.blocks.residual import UniversalBottleneck as UniversalBottleneck
from numnet.blocks.separable import Separable as Separable
from numnet.blocks.separable import Sequence as Sequence
from numnet.blocks.unit import Conv as Conv
from numnet.blocks.unit import Depthwise as Depthwise
from numnet.blocks.unit import Norm as Norm
from numnet.blocks.unit import Pointwise as Pointwise
