"""Run a plan, or any long work: a bar, what is left, a way to stop it, and at the end the proof."""

import os
from collections.abc import Callable
from typing import Any, Unpack

import ipywidgets
import traitlets

from ..arguments import checked
from ..checkpoint import Conversion, Executor, Progress, ReshardResult, Verification, WriteOptions
from ..display import counted, format_bytes
from ..errors import ContextError
from ..text import escape, printable
from ..views import FILES, Drawing, traffic_svg
from .parts import Lanes, Panel, Picture, Snapshot, Work, error_html, outcome_html, still_of

__all__ = ["RunPanel"]

SAID = {
    "ready": "",
    "running": "Running.",
    "cancelling": "Stopping.",
    "cancelled": "Stopped.",
    "done": "Done.",
    "failed": "It failed.",
}
KEPT = {
    "cancelled": "What is finished is kept; Resume goes on from there.",
    "failed": "What is finished is kept; to try again goes on from there.",
}
"""Of work that goes on where it was stopped."""


@checked
class RunPanel(Panel):
    """Starts work, shows how far it is, stops it, goes on with it.

    The work runs in a thread of its own, so the notebook stays usable. One panel runs one thing at a
    time, however often its button is pressed.

    Parameters
    ----------
    work
        A plan between files (`checkpoint.plan(...)`), or a callable that is given a `control`:
        `control.progress(...)` takes a `reshard.Progress`, `control.cancelled()` tells when to stop,
        `control.attach(run)` cancels the cards' run too.
    folder
        Where a plan's output goes; not for a callable.
    verb
        What the button says.
    resumes
        Whether the work is resumed where it was stopped; by default a plan is and a callable is not.
    on
        Who writes a plan's files, see `Conversion.write`.
    options
        Of `Conversion.write`: `route`, `buffer`, `memory_limit`, `overwrite` and so on.

    Attributes
    ----------
    state : str
        "ready", "running", "cancelling", "cancelled", "done" or "failed".
    result : object
        What the work gave; None before it is done.
    verification : Verification, or None
        What reading a plan's output again has found.

    Raises
    ------
    ArgumentTypeError
        If the work is of another kind.
    ContextError
        If a plan comes without a folder, or a callable with one or with options.

    Examples
    --------
    >>> panel = RunPanel(lambda control: 6 * 7)
    >>> panel.run()
    True
    >>> panel.wait().state, panel.result
    ('done', 42)
    """

    state = traitlets.Unicode("ready")
    _work = Work(lambda snapshot: None)  # a panel that is refused is closed too

    def __init__(
        self,
        work: Conversion | Callable[..., Any],
        folder: str | os.PathLike[str] | None = None,
        *,
        verb: str = "Run",
        resumes: bool | None = None,
        on: Executor | None = None,
        **options: Unpack[WriteOptions],
    ) -> None:
        _check(work, folder, options if on is None else {"on": on, **options})
        self._verb = verb
        self._resumes = isinstance(work, Conversion) if resumes is None else resumes
        self._plan = work if isinstance(work, Conversion) else None
        self._call = None if isinstance(work, Conversion) else work
        self._folder, self._on, self._options = folder, on, options
        self.result: Any = None
        self.verification: Verification | None = None
        self.picture = Picture(self._drawing(), {}, {}, hint="")
        self.button = ipywidgets.Button(description=verb, icon="play", tooltip="Start, or go on")
        self.stop = ipywidgets.Button(description="Cancel", icon="stop", disabled=True)
        self.verify = ipywidgets.Button(description="Verify", icon="check", disabled=True)
        # Nothing is said of how far it is before it is begun.
        self.bar = ipywidgets.IntProgress(max=1000, description="Progress")
        self.bar.layout.display = "none"
        self.line = ipywidgets.HTML(_status(Snapshot()))
        self.lanes = Lanes()
        self.outcome = ipywidgets.HTML()
        # Only a plan has a picture, and files to read again.
        drawn, verified = ([], []) if self._plan is None else ([self.picture], [self.verify])
        buttons = ipywidgets.HBox([self.button, self.stop, *verified])
        super().__init__(*drawn, buttons, self.bar, self.line, self.lanes, self.outcome)
        self._work = Work(self.errors.guard(self._show, clears=False))
        self.button.on_click(self.errors.guard(lambda button: self.run()))
        self.stop.on_click(self.errors.guard(lambda button: self.cancel()))
        self.verify.on_click(self.errors.guard(lambda button: self._verify()))

    def _drawing(self) -> Drawing:
        if self._plan is None:
            return Drawing("", repr(self))
        files, ranks = counted(self._plan.plan.src_count, "file"), counted(self._plan.plan.dst_count, "rank")
        title = f"{files} to {ranks}, into the folder {os.fspath(self._folder or '')}"
        return Drawing(traffic_svg(self._plan.plan.traffic, title, sides=FILES), repr(self))

    def run(self) -> bool:
        """Start, or go on with what was stopped; False if it is at work already."""
        return self._work.start(self._job)

    def cancel(self) -> None:
        """Ask it to stop."""
        self._work.cancel()

    def wait(self, timeout: float | None = None) -> Snapshot:
        """Wait until it has ended, at most `timeout` seconds; gives how it stands."""
        return self._work.wait(timeout)

    def _job(self, control: Any) -> Any:
        if self._plan is None:
            assert self._call is not None
            return self._call(control)
        assert self._folder is not None
        watched: WriteOptions = {
            **self._options,
            "progress": control.progress,
            "cancelled": control.cancelled,
        }
        return self._plan.write(self._folder, on=self._on, **watched)

    def _verify(self) -> None:
        written = self.result
        if isinstance(written, ReshardResult):
            self._work.start(lambda control: written.verify())

    def _show(self, snapshot: Snapshot) -> None:
        """Bring the panel up to date; called from the threads of the work."""
        self.button.disabled = snapshot.at_work
        stopped = self._resumes and snapshot.state == "cancelled"
        self.button.description = "Resume" if stopped else self._verb
        self.stop.disabled = snapshot.state != "running"
        if isinstance(snapshot.result, Verification):
            self.verification = snapshot.result
        elif snapshot.state == "done":
            self.result = snapshot.result
        self.verify.disabled = snapshot.at_work or not isinstance(self.result, ReshardResult)
        # Without a word of progress nothing was begun.
        begun = snapshot.progress is not None
        self.line.value = _status(snapshot, KEPT.get(snapshot.state, "") if self._resumes and begun else "")
        self.bar.layout.display = None
        done = snapshot.state == "done"
        self.bar.value = 1000 if done else _share(snapshot.progress)
        self.bar.bar_style = {"done": "success", "failed": "danger", "cancelled": "warning"}.get(
            snapshot.state, ""
        )
        self.lanes.show(snapshot.progress)
        if snapshot.error is not None and not begun:
            self.lanes.clear()
        if snapshot.at_work:
            self.outcome.value = ""
        elif snapshot.error is not None:
            self.outcome.value = error_html(snapshot.error, stopped=snapshot.state == "cancelled")
        elif done:
            self.outcome.value = outcome_html(snapshot.result)
        # Last, for whoever waits for it finds the panel as it will stay.
        self.state = snapshot.state

    def close(self) -> None:
        """Stop the work, and be shown no more."""
        self.cancel()
        super().close()

    @property
    def static(self) -> Drawing:
        """What is moved, as it stands where there is no kernel."""
        return still_of(self.picture.still.svg, repr(self))

    def __repr__(self) -> str:
        if self._plan is None:
            return f"RunPanel({getattr(self._call, '__name__', type(self._call).__name__)})"
        plan = self._plan.plan
        return (
            f"RunPanel({counted(len(plan), 'tensor')}, {format_bytes(int(plan.needed_bytes.sum()))}, "
            f"{plan.src_count:,} -> {counted(plan.dst_count, 'rank')}, to {printable(os.fspath(self._folder or ''))})"
        )


def _check(work: Any, folder: Any, options: Any) -> None:
    if isinstance(work, Conversion):
        if folder is None:
            raise ContextError("a plan needs a folder to write to: RunPanel(plan, 'out')")
        return
    if folder is not None or options:
        words = ", ".join(filter(None, ["folder" if folder is not None else "", *options]))
        raise ContextError(f"{words}: only a plan takes these; let the callable know them itself")


def _share(progress: Progress | None) -> int:
    """Thousandths that are done."""
    return 0 if progress is None else int(1000 * progress.done_bytes / max(progress.total_bytes, 1))


def _status(snapshot: Snapshot, kept: str = "") -> str:
    """The line below the bar: what is going on, how far, for how long, how much longer."""
    parts = [SAID[snapshot.state], *([kept] if kept else [])]
    progress = snapshot.progress
    if progress is not None:
        parts.append(f"{format_bytes(progress.done_bytes)} of {format_bytes(progress.total_bytes)}.")
    if snapshot.state != "ready":
        parts.append(f"{snapshot.seconds:.1f} s.")
    if snapshot.state == "running" and progress is not None and progress.seconds_left is not None:
        parts.append(f"About {progress.seconds_left:.0f} s left.")
    return f'<div role="status">{escape(" ".join(parts))}</div>'
