"""What the flow's tests share: a clean context, and a trained sample on disk."""

import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.flow import reset_auto_parallel_context
from distinfer_lab.flow.sample import train_sample


@pytest.fixture(autouse=True)
def _clean_context():
    reset_auto_parallel_context()
    yield
    reset_auto_parallel_context()


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder that the sample's training on 8 cards leaves."""
    folder = tmp_path_factory.mktemp("trained")
    with CardGroup(8) as cards:
        train_sample(folder, cards)
    return folder
