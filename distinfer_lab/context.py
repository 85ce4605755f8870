"""Settings, where MindSpore has them: `from distinfer_lab.context import set_auto_parallel_context`."""

from .flow.context import *  # noqa: F403
