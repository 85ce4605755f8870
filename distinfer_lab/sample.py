"""The net that the notebooks train, and its data: `from distinfer_lab.sample import train_sample`."""

from .flow.sample import *  # noqa: F403
