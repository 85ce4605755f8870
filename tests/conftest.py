"""Two depths of one command, `pytest` and `DISTINFER_PROFILE=thorough pytest`; no test leaves settings behind."""

import os

import hypothesis
import pytest

from distinfer_lab.flow import reset_auto_parallel_context

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("DISTINFER_PROFILE", "default"))


@pytest.fixture(autouse=True)
def fresh_context():
    """Settings as they are at the start, before and after each test."""
    reset_auto_parallel_context()
    yield
    reset_auto_parallel_context()
