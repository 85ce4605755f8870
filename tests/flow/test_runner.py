"""Programs of a net: made once for each key, and not kept without end."""

from distinfer_lab.flow.runner import MOST_PROGRAMS, NetRunner
from distinfer_lab.net import nn


def test_a_program_is_made_once_while_it_is_used():
    """The one that is used between all others stays; of the rest the latest do."""
    runner, made = NetRunner(nn.ReLU()), []

    def program(key):
        return runner.program(key, lambda: made.append(key) or object())

    first = program("first")
    for number in range(3 * MOST_PROGRAMS):
        program(number)
        assert program("first") is first
    latest = list(range(2 * MOST_PROGRAMS + 1, 3 * MOST_PROGRAMS))
    assert len(latest) == MOST_PROGRAMS - 1
    for number in latest:
        program(number)
    assert made == ["first", *range(3 * MOST_PROGRAMS)]
    program(0)
    assert made[-1] == 0
