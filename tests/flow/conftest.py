"""What the flow's tests share: a trained sample on disk."""

import pytest

from distinfer_lab.cards import CardGroup
from distinfer_lab.flow.sample import train_sample


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The folder that the sample's training on 8 cards leaves."""
    folder = tmp_path_factory.mktemp("trained")
    with CardGroup(8) as cards:
        train_sample(folder, cards)
    return folder
