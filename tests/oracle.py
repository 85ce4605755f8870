"""The oracle's data: what the real MindSpore wrote and answered (see tests/data/oracle/README.md)."""

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from distinfer_lab.layout import Layout
from distinfer_lab.layout.dialects.mindspore import MindSporeLayout, to_layout

ORACLE = Path(__file__).parent / "data" / "oracle"
CASES = tuple(sorted(path.name for path in (ORACLE / "cases").iterdir()))


class Case(NamedTuple):
    """One folder of tests/data/oracle/cases."""

    folder: Path
    facts: dict[str, Any]

    @property
    def src_strategy(self) -> Path:
        return self._strategy("src")

    @property
    def dst_strategy(self) -> Path | None:
        return self._strategy("dst") if self.facts["dst_layouts"] is not None else None

    def _strategy(self, side: str) -> Path:
        return next(self.folder.glob(f"{side}_strategy.*"))

    @property
    def key(self) -> dict[str, Any]:
        """What opens the source files."""
        options = self.facts["save_options"]
        if "enc_key" not in options:
            return {}
        return {"dec_key": bytes.fromhex(options["enc_key"]), "dec_mode": options["enc_mode"]}

    @property
    def full(self) -> dict[str, np.ndarray]:
        """The whole tensors, in the dtypes that the files have."""
        found = np.load(self.folder / "full.npz")
        out = {}
        for name in found:
            dtype = self.facts["params"][name]["dtype"] if name in self.facts["params"] else None
            out[name] = found[name].astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else found[name]
        return out

    def dst_layout(self, name: str) -> Layout | None:
        """The destination's layout, made from case.json and not by our reader."""
        layouts = self.facts["dst_layouts"]
        if layouts is None or name not in layouts:
            return None
        found = layouts[name]
        tensor_map = tuple(tuple(e) if isinstance(e, list) else e for e in found["map"])
        item = MindSporeLayout(
            tuple(found["dev"]), tensor_map, found["step"], found["size"], tuple(found["split"])
        )
        return to_layout(item, found["stages"])


@cache
def case(name: str) -> Case:
    """A case by its folder's name."""
    folder = ORACLE / "cases" / name
    return Case(folder, json.loads((folder / "case.json").read_text()))
