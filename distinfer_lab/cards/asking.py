"""Calls of functions on workers, beside their tasks, which are given up in time.

Dask itself tries for half a minute to reach a worker that has just gone, and keeps the caller waiting.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from distributed import Client

from ..errors import CardError

__all__ = ["ANSWER_SECONDS", "NO_ANSWER", "answers_of", "asking", "is_silent"]

ANSWER_SECONDS = 10.0
"""How long a worker may take to answer."""


def asking(
    client: Client, task: Callable[..., Any], args: tuple[Any, ...], workers: list[str]
) -> "Future[dict[str, Any]]":
    """Call a function on some workers, beside their tasks; to cancel it leaves no thread that waits."""

    async def ask() -> dict[str, Any]:
        answers: dict[str, Any] = await client.run(
            task, *args, workers=workers, on_error="return", asynchronous=True
        )
        return answers

    return asyncio.run_coroutine_threadsafe(ask(), client.loop.asyncio_loop)


def answers_of(
    client: Client, task: Callable[..., Any], args: tuple[Any, ...], seconds: float, workers: list[str]
) -> dict[str, Any]:
    """What some workers answer in time, by address; errors are answers. Empty if one of them keeps back all."""
    with contextlib.suppress(OSError, TimeoutError, RuntimeError, ValueError, CancelledError):
        future = asking(client, task, args, workers)
        try:
            return future.result(seconds)
        finally:
            future.cancel()
    return {}


def is_silent(answer: object) -> bool:
    """Whether a worker could not answer: its connection failed (and not what it was asked to do)."""
    return isinstance(answer, OSError | TimeoutError) and not isinstance(answer, CardError)


NO_ANSWER = OSError("no answer")
"""In place of an answer that did not come."""
