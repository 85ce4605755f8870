"""Whether the files of a checkpoint are encrypted alike, by their first four bytes.

::

    rank 0   7f3a5ed8 ...   AES-GCM
    rank 1   0a1c0a06 ...   not encrypted      -> they are not of one save, and no key opens both
"""

from collections.abc import Mapping, Sequence

from ..errors import Option, Remark, listed
from ..formats import encrypted_by
from ..untrusted import open_regular

__all__ = ["unlike_ciphers"]


def unlike_ciphers(paths: Mapping[int, Sequence[str]]) -> str:
    """That some files are encrypted and others are not, or in another mode, as a sentence; "" if all are alike.

    Parameters
    ----------
    paths
        Rank -> its files; one that cannot be read says nothing.
    """
    held: dict[str, dict[str, int]] = {}
    for rank, files in paths.items():
        for path in files:
            mode = _mode(path)
            if mode is not None:
                held.setdefault(mode, {})[path] = rank
    if len(held) < 2:
        return ""
    words = [
        f"{listed((f'{path} (rank {rank})' for path, rank in files.items()), 3)} "
        f"{'are' if len(files) > 1 else 'is'} {f'encrypted by {mode}' if mode else 'not encrypted'}"
        for mode, files in sorted(held.items(), reverse=True)
    ]
    way_out = _way_out(held)
    return Remark(
        f"{', but '.join(words)}: they are not of one save; give files of one save{way_out}",
        of=way_out,
    )


def _way_out(held: Mapping[str, Mapping[str, int]]) -> str:
    """Which ranks to leave out, where every rank's files are alike."""
    ranks = [sorted(set(files.values())) for files in held.values()]
    fewest = min(ranks, key=len)
    if len(held) > 2 or set(ranks[0]) & set(ranks[1]):
        return ""
    without = Option("without", fewest)
    return Remark(f", or leave the wrong ones out by {without}, if other ranks hold the same", without)


def _mode(path: str) -> str | None:
    """The mode of an encrypted file, "" if it is not encrypted; None if it cannot be read."""
    try:
        with open_regular(path) as file:
            return encrypted_by(file.read(4))
    except OSError:
        return None
