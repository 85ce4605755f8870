"""Cells, layers, losses and optimizers, where MindSpore has them: `import distinfer_lab.nn as nn`."""

from .net.nn import *  # noqa: F403
