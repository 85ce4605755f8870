"""The process in which something was made, for what cannot be used in another.

A child made by fork has a copy of a card group and its handles, but none of the threads that serve them: a wait
for those would never end. So each call that may wait checks first where it is.
"""

import os

from ..errors import CardError

__all__ = ["Origin"]


class Origin:
    """The process in which this was made.

    Parameters
    ----------
    thing
        What was made there, for the error: "card group".
    """

    def __init__(self, thing: str) -> None:
        self._thing, self._pid = thing, os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether this is that process, and not a child made by fork."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Refuse a child made by fork.

        Raises
        ------
        CardError
            If this is another process.
        """
        if not self.is_here:
            raise CardError(
                f"this {self._thing} belongs to process {self._pid}, and process {os.getpid()} is a child that was "
                "made by fork; use it in its own process only, or make a CardGroup in a child that multiprocessing "
                "starts by 'spawn'"
            )
