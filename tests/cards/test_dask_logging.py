"""What Dask says and does of its own while groups come, go and wait: nothing."""

import copy
import subprocess
import sys
from pathlib import Path

import dask
import pytest

from distinfer_lab.cards import CardGroup

SCRIPT = """
import logging
import distributed
from distinfer_lab.cards import CardGroup
if __name__ == "__main__":
    before = [handler.level for handler in logging.getLogger("distributed").handlers]
    assert before
    first, second = CardGroup(2, processes={processes}), CardGroup(2)
    first.close()
    second.close()
    assert [handler.level for handler in logging.getLogger("distributed").handlers] == before
    print("done")
"""


@pytest.mark.parametrize("processes", [False, True], ids=["in this process", "in processes"])
def test_groups_that_overlap_end_in_silence(processes):
    """The end of one does not let the other one's cluster talk; after both the log is as it was."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(processes=processes)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.parametrize("processes", [False, True], ids=["in this process", "in processes"])
def test_idle_cards_do_not_keep_the_machine_at_work(processes):
    """Workers look at themselves rarely and at their threads never; the settings of others stay as they were."""
    before = copy.deepcopy(dask.config.config)
    with CardGroup(2, processes=processes) as cards:
        calls = cards.client.run(
            lambda dask_worker: {n: c.callback_time for n, c in dask_worker.periodic_callbacks.items()}
        )
        assert len(calls) == 2
        for found in calls.values():
            assert "profile" not in found
            assert min(found.values()) >= 250
    assert dask.config.config == before
