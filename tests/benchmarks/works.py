"""The works that are timed: checkpoints of a given size, and their destinations.

W1   8 tensor-parallel slices -> 4         rows, columns and replicated parameters mixed
W2   8 -> 1
W3   dp2 x tp4 -> tp2 x tp2, cut in both dims
W4   64 -> 32, as W1                       for the growth with the number of slices
"""

from pathlib import Path

import numpy as np

from distinfer_lab.formats import StrategyFile, save_slice, write_strategy
from distinfer_lab.layout import Layout, Mesh, Strategy

__all__ = ["WORKS", "Work", "make_source", "whole"]

WIDTHS = (2048, 1024, 512, 256)


def layout(dims: str, **mesh: int) -> Layout:
    """A layout on a mesh that is given by keywords."""
    return Layout(Mesh(**mesh), dims)


ROWS = "tp -"
COLUMNS = "- tp"


def rows_and_columns(**mesh: int) -> tuple[Layout, Layout, Layout]:
    """How the tensors of a transformer are cut: rows, columns, and small ones not at all."""
    return layout(ROWS, **mesh), layout(COLUMNS, **mesh), layout("-", **mesh)


class Work:
    """A source and a destination strategy for a model of a given size.

    Parameters
    ----------
    name
        See above.
    nbytes
        Bytes of all parameters, each counted once; about kept.
    """

    def __init__(self, name: str, nbytes: int) -> None:
        self.name = name
        src, dst = WORKS[name]
        width = next((w for w in WIDTHS if 40 * w * w <= nbytes), WIDTHS[-1])
        layers = max(round(nbytes / (40 * width * width)), 1)
        self.shapes: dict[str, tuple[int, ...]] = {}
        kinds: dict[str, int] = {}
        for layer in range(layers):
            for part, shape, kind in (
                ("q", (width, width), 0),
                ("o", (width, width), 1),
                ("up", (4 * width, width), 0),
                ("down", (width, 4 * width), 1),
                ("norm", (width,), 2),
            ):
                self.shapes[f"layers.{layer}.{part}.weight"] = shape
                kinds[f"layers.{layer}.{part}.weight"] = kind
        self.src = Strategy({n: src[kinds[n]] for n in kinds}, self.shapes)
        self.dst = None if dst is None else Strategy({n: dst[kinds[n]] for n in kinds}, self.shapes)

    @property
    def copied_ranks(self) -> list[int]:
        """Source ranks that together hold every cut parameter once: what a plain copy copies."""
        replicas = 2 if self.name == "W3" else 1
        return list(range(self.src.ranks // replicas))

    def source_path(self, folder: Path, rank: int, format: str) -> Path:
        """The file of a source rank."""
        return folder / f"rank_{rank}" / f"src{rank}.{format}"


TWO_BY_TWO = (
    layout("x y", x=2, y=2),
    layout("x y", x=2, y=2),
    layout("-", x=2, y=2),
)
WORKS = {
    "W1": (rows_and_columns(tp=8), rows_and_columns(tp=4)),
    "W2": (rows_and_columns(tp=8), None),
    "W3": (rows_and_columns(dp=2, tp=4), TWO_BY_TWO),
    "W4": (rows_and_columns(tp=64), rows_and_columns(tp=32)),
}


def whole(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter's values: cheap to make, different everywhere."""
    seed = sum(name.encode()) % 251
    return (
        (np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint32) * 2654435761 + seed)
        .view(np.float32)
        .reshape(shape)
    )


def make_source(work: Work, folder: Path, format: str) -> None:
    """Write the source slices and both strategies, unless they are there."""
    if (folder / "done").exists():
        return
    for rank in range(work.src.ranks):
        shards = {}
        for name, shape in work.shapes.items():
            box = work.src[name].boxes(shape)[rank]
            shards[name] = np.ascontiguousarray(whole(name, shape)[tuple(slice(a, b) for a, b in box)])
        save_slice(work.source_path(folder, rank, format), shards, format=format, sync=False)
    write_strategy(folder / "src_strategy.ckpt", StrategyFile.from_strategy(work.src))
    if work.dst is not None:
        write_strategy(folder / "dst_strategy.ckpt", StrategyFile.from_strategy(work.dst))
    (folder / "done").touch()
