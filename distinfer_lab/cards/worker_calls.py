"""Calls of functions on workers outside their tasks, with a time limit.

Dask itself tries for half a minute to reach a worker that has just been lost, and the caller waits for it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any

from distributed import Client

from ..errors import CardError

__all__ = ["ANSWER_SECONDS", "NO_ANSWER", "answers_of_each", "answers_within", "call_workers", "is_silent"]

ANSWER_SECONDS = 10.0
"""How long a worker may take to answer."""


def call_workers(
    client: Client, task: Callable[..., Any], args: tuple[Any, ...], workers: list[str]
) -> "Future[dict[str, Any]]":
    """Call a function on some workers, outside their tasks. To cancel the future leaves no thread that waits."""

    async def ask() -> dict[str, Any]:
        answers: dict[str, Any] = await client.run(
            task, *args, workers=workers, on_error="return", asynchronous=True
        )
        return answers

    return asyncio.run_coroutine_threadsafe(ask(), client.loop.asyncio_loop)


def answers_within(
    client: Client, task: Callable[..., Any], args: tuple[Any, ...], seconds: float, workers: list[str]
) -> dict[str, Any]:
    """The answers of some workers by address, errors included; empty if one of them does not answer in time."""
    with contextlib.suppress(OSError, TimeoutError, RuntimeError, ValueError, CancelledError):
        future = call_workers(client, task, args, workers)
        try:
            return future.result(seconds)
        finally:
            future.cancel()
    return {}


def answers_of_each(
    client: Client, task: Callable[..., Any], args: tuple[Any, ...], seconds: float, workers: list[str]
) -> dict[str, Any]:
    """The answers of some workers by address, errors included; those that do not answer in time are left out."""

    def ask(some: list[str]) -> dict[str, Any]:
        return answers_within(client, task, args, seconds, some)

    found = ask(workers)
    if found or len(workers) <= 1:
        return found
    # One that is lost, or hangs, keeps back the answers of all: each is asked by itself.
    with ThreadPoolExecutor(len(workers), thread_name_prefix="ask-card") as pool:
        each = pool.map(lambda address: ask([address]), workers)
        return {address: answer for answers in each for address, answer in answers.items()}


def is_silent(answer: object) -> bool:
    """Whether a worker could not answer: its connection failed (and not what it was asked to do)."""
    return isinstance(answer, OSError | TimeoutError) and not isinstance(answer, CardError)


NO_ANSWER = OSError("no answer")
"""In place of an answer that did not come."""
