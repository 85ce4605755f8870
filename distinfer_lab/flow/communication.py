"""MindSpore's functions for a process's rank and group size; here one session drives all cards.

A MindSpore script calls these in every process. In this one session they give rank 0 and the size of
the current card group.
"""

from ..cards import current_group

__all__ = ["get_group_size", "get_rank", "init"]


def init(backend_name: str | None = None) -> None:
    """Accepted for MindSpore's scripts: make sure that there is a card group.

    Raises
    ------
    ContextError
        If there is none.
    """
    current_group()


def get_rank() -> int:
    """0: the session that drives all cards."""
    current_group()
    return 0


def get_group_size() -> int:
    """The number of cards of the current group."""
    return len(current_group())
