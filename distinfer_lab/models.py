"""GPT-2, Llama and their families: `from distinfer_lab.models import Llama`."""

from .net.models import *  # noqa: F403
