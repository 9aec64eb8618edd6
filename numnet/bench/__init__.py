"""``numnet bench``: how fast, how near the machine's limits, how much memory; beside PyTorch and ONNX Runtime.

workloads    what is measured: nets, sizes, batches
sides        who is measured: numnet, PyTorch, its compiler, ONNX Runtime
mirror       any net of numnet's as a torch.nn module
worker       one measurement, in a process of its own
machine      what the processor and the memory can do at most
comparison   the alternating processes, medians and ratios
report       tables and figures
"""

from numnet.bench.comparison import compare as compare
from numnet.bench.workloads import WORKLOADS as WORKLOADS
from numnet.bench.workloads import Workload as Workload
