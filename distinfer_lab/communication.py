"""Ranks, where MindSpore has them: `from distinfer_lab.communication import init, get_rank`."""

from .flow.communication import *  # noqa: F403
