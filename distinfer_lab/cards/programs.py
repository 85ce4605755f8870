"""The programs that the cards keep: each is sent once, and known by a key from then on."""

import uuid
from typing import Any

from . import tasks
from .members import Members

__all__ = ["Programs"]


class Programs:
    """The programs of one group.

    Parameters
    ----------
    members
        The workers behind the cards.
    name
        Of the group.
    """

    def __init__(self, members: Members, name: str) -> None:
        self._members, self._name = members, name
        self._kept: dict[str, Any] = {}

    def __contains__(self, program: Any) -> bool:
        return any(known is program for known in self._kept.values())

    def keep(self, program: Any) -> str:
        """Send a program to all cards, unless they have it; gives its key."""
        for key, known in self._kept.items():
            if known is program:
                return key
        key = f"program-{uuid.uuid4().hex[:12]}"
        self._members.ask(tasks.keep_program, self._name, key, program)
        self._kept[key] = program
        return key

    def clear(self) -> None:
        """Some card has none of them any more."""
        self._kept.clear()
