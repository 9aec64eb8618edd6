"""Inference: batch norm folded to one multiply-add a number, and a plan of steps and buffers made once a shape."""

from numnet.inference.executor import Executor as Executor
