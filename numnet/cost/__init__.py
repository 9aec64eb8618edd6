"""What a net costs, in closed form: nothing here allocates an array, and a test counts the kernels against it.

    cost.of(net)         .macs .params .buffers .rows               the papers' count
    cost.summary(net)    the familiar table as a dict, ``cost.table(net)`` as text
    cost.report(net)     everything: per layer, per type, in sum; see ``report``
    cost.csv(reports)    the layers of some reports as CSV
    cost.block(text)     one layer or block, written like "conv:7x7x3:128": formula, numbers; ``cost.blocks`` compares several

MACs, not FLOPs: one MAC is one multiplication and one addition. ``macs`` counts as the papers count: convolutions and
dense layers, taps on the padding included; bias, batch norm, activation and pooling count no MAC.
"""

from numnet.cost.block import block as block
from numnet.cost.block import blocks as blocks
from numnet.cost.memory import peak_inference as peak_inference
from numnet.cost.memory import peak_training as peak_training
from numnet.cost.report import csv as csv
from numnet.cost.report import report as report
from numnet.cost.table import NetCost as NetCost
from numnet.cost.table import of as of
from numnet.cost.table import summary as summary
from numnet.cost.table import table as table
from numnet.cost.tools import tools as tools
