"""What Dask says of its own while groups come and go: nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

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
