"""The outcome of a finished run, as a table: what was checked, and the results."""

from typing import Any

from ...checkpoint import ReshardResult
from ...display import counted, format_bytes
from ...text import escape
from ...views import table_html

__all__ = ["outcome_html", "proof_rows"]


def proof_rows(result: ReshardResult) -> list[list[str]]:
    """Digests, bytes read against those needed, bytes moved, peaks predicted and measured.

    Returns
    -------
    Rows of three texts: what, how much, and beside it what it is measured by.
    """
    words = format_bytes
    shards = [digest for file in result.digests for digest in file.values()]
    with_digest = sum(digest is not None for digest in shards)
    ratio = result.read_bytes / max(result.needed_bytes, 1)
    files = counted(len(result.files), "file")
    rows = [
        ["written", words(result.written_bytes), f"{files} in {result.seconds:.2f} s"],
        [
            "digests (xxh3-128)",
            f"{with_digest} of {counted(len(shards), 'shard')}",
            "in the manifest, which `verify` reads all against",
        ],
        ["read", words(result.read_bytes), f"{ratio:.2f} times the {words(result.needed_bytes)} needed"],
        ["moved between cards", words(result.moved_bytes), "nothing moves where all read the same files"],
        [
            "memory for data",
            words(result.buffer_bytes),
            f"at most {words(result.predicted_peak_bytes)} were predicted",
        ],
    ]
    if result.private_bytes is not None:
        rows.append(
            ["private memory of a card", words(result.private_bytes), "measured, beyond the idle process"]
        )
    if result.reused_bytes:
        rows.append(["from an earlier run", words(result.reused_bytes), "its digests were right"])
    return rows


def outcome_html(result: Any) -> str:
    """Any result, as a notebook would show it (None not at all); the proof of a reshard."""
    if result is None:
        return ""
    if isinstance(result, ReshardResult):
        rows = proof_rows(result)
        return f"<p>{escape(result.folder)}</p>" + table_html(
            ["what", "measured", "beside it"], rows, len(rows)
        )
    show = getattr(result, "_repr_mimebundle_", None)
    bundle = {} if show is None else show()
    data = (bundle[0] if isinstance(bundle, tuple) else bundle) or {}
    html: str = data.get("text/html") or f"<pre>{escape(repr(result))}</pre>"
    return html
