"""The programs that the cards keep: each is sent once, and kept for as long as somebody here holds it.

What nobody holds any more is forgotten on the cards when the next program is sent: the garbage collector, which
may run in any thread, must not talk to the cluster.
"""

import uuid
from weakref import WeakKeyDictionary

from . import tasks
from .membership import Membership

__all__ = ["Programs"]


class Programs:
    """The programs of one group.

    Parameters
    ----------
    membership
        The workers behind the cards.
    name
        Of the group.
    """

    def __init__(self, membership: Membership, name: str) -> None:
        self._membership, self._name = membership, name
        self._keys: WeakKeyDictionary[object, str] = WeakKeyDictionary()
        self._sent: set[str] = set()
        """The keys of all that some card may still keep."""

    def __contains__(self, program: object) -> bool:
        return program in self._keys

    def keep(self, program: object) -> str:
        """Send a program to all cards, unless they have it; returns its key."""
        if program not in self._keys:
            key = f"program-{uuid.uuid4().hex[:12]}"
            self._forget_unused()
            self._sent.add(key)
            self._membership.ask(tasks.keep_program, self._name, key, program)
            self._keys[program] = key
        return self._keys[program]

    def clear(self) -> None:
        """Some card has none of them any more; those that others still have are forgotten in time."""
        self._keys.clear()

    def _forget_unused(self) -> None:
        unused = self._sent.difference(self._keys.values())
        if unused:
            self._membership.ask(tasks.forget_programs, self._name, unused)
            self._sent -= unused
