"""`python -m distinfer_lab` is the command `distinfer`."""

from .cli import main

main()
