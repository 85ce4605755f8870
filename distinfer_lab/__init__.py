"""distinfer_lab: a workbench for distributed inference."""

__version__ = "0.1.0"
