"""Two depths of one command: `pytest`, and `DISTINFER_PROFILE=thorough pytest`."""

import os

import hypothesis

hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("DISTINFER_PROFILE", "default"))
