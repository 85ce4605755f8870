"""Operators, where MindSpore has them: `import distinfer_lab.ops as ops`."""

from .net.ops import *  # noqa: F403
