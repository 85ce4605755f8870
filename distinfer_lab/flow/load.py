"""Step 3: checkpoints into nets, each card its share; and MindSpore's other loading and saving jobs."""

import fnmatch
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards import CardGroup, current_group
from ..checkpoint import Checkpoint, as_strategy, open_checkpoint, open_slice, save_slice
from ..display import Displayed
from ..errors import ArgumentTypeError, CheckpointError, ContextError, listed
from ..layout import Layout, Strategy
from ..layout.dialects.mindspore import strategy_from_tuples
from ..net import Cell, Parameter, Tensor
from ..reshard import ReshardPlan, plan_reshard, shares_of
from .context import parallel_context
from .placing import PlacedNet, remember
from .predict_layout import PredictLayout

__all__ = [
    "LoadResult",
    "build_searched_strategy",
    "load_checkpoint",
    "load_distributed_checkpoint",
    "load_param_into_net",
    "load_slices",
    "save_checkpoint",
]

PathLike = str | os.PathLike[str]
Files = PathLike | Sequence[PathLike] | Mapping[int, PathLike]


@dataclass(frozen=True, repr=False)
class LoadResult(Displayed):
    """What was loaded, and how."""

    plan: ReshardPlan
    """The way of every shard, from source slices to cards."""
    strategy: Strategy
    """How the parameters lie on the cards now."""
    renamed: Mapping[str, str]
    """Parameter of the net -> entry of the files, where the names differ."""
    converted: Mapping[str, str]
    """Parameter -> the dtype that it was converted from."""
    unused: tuple[str, ...]
    """Entries of the files that the net does not have (optimizer states, counters)."""
    missing: tuple[str, ...]
    """Parameters that no entry was found for, which the caller allowed."""
    held_bytes: tuple[int, ...]
    """Bytes that each card holds of the net."""

    def __repr__(self) -> str:
        lines = [
            f"LoadResult: {len(self.plan)} parameters on {len(self.held_bytes)} cards, "
            f"at most {max(self.held_bytes, default=0)} bytes a card"
        ]
        lines += [f"  {name} was loaded from {entry}" for name, entry in self.renamed.items()]
        lines += [f"  {name} was converted from {dtype}" for name, dtype in self.converted.items()]
        if self.unused:
            lines.append(f"  not in the net: {', '.join(self.unused)}")
        if self.missing:
            lines.append(f"  not in the files: {', '.join(self.missing)}")
        return "\n".join(lines)


def load_distributed_checkpoint(
    network: Cell,
    checkpoint_filenames: Files,
    predict_strategy: PredictLayout | Strategy | Mapping[str, Sequence[Any]] | PathLike | None = None,
    train_strategy_filename: PathLike | Strategy | None = None,
    strict_load: bool = False,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    format: str = "ckpt",
    name_map: Mapping[str, str] | None = None,
    *,
    cards: CardGroup | None = None,
    allow_missing: Sequence[str] = (),
    check_replicas: bool = True,
) -> LoadResult:
    """Load a sliced checkpoint into a net on the cards; each card reads its own share and no more.

    Parameters
    ----------
    network
        The net.
    checkpoint_filenames
        The slice files in rank order; or a folder of `rank_N` folders, or one merged file.
    predict_strategy
        What `infer_predict_layout` gave, a mapping of its tuples (4 to 12 items), a Strategy,
        or a strategy file. None: one card, which gets everything.
    train_strategy_filename
        The strategy that the files were saved with; by default that of
        `set_auto_parallel_context(strategy_ckpt_load_file=...)`. With neither, every file
        must hold everything.
    strict_load
        Names and dtypes must be equal. Otherwise float and integer dtypes are converted
        within their kind, and a parameter without an entry of its name takes one that differs
        by a prefix or a suffix, if there is just one; the result tells.
    dec_key, dec_mode
        For encrypted files.
    format
        Accepted for MindSpore's scripts; a file's name tells its format.
    name_map
        Entry of the files -> parameter of the net.
    cards
        The group; by default the current one.
    allow_missing
        Patterns ("head.*") of parameters that may be left as they are.
    check_replicas
        Compare slices that should be equal, which reads all files once more.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If files are missing, damaged, out of order, or disagree with the strategy or the net.
    LayoutError, ReshardError
        If a strategy does not fit.
    CardError, ContextError
        If there are too few cards, or none.
    """
    if not isinstance(network, Cell):
        raise ArgumentTypeError(f"network is a Cell, not {type(network).__name__}")
    if format not in ("ckpt", "safetensors"):
        raise ContextError(f"format={format!r} is not 'ckpt' or 'safetensors'")
    group = current_group() if cards is None else cards
    train = train_strategy_filename or parallel_context().strategy_ckpt_load_file or None
    params = network.parameters_dict()
    with open_checkpoint(checkpoint_filenames, train, dec_key=dec_key, dec_mode=dec_mode) as checkpoint:
        matching = _Matching(params, checkpoint, strict_load, name_map or {}, allow_missing)
        if check_replicas:
            checkpoint.check_replicas(list(matching.entries.values()))
        dst = _predict_strategy(predict_strategy, params, list(matching.entries))
        plan = _planned(matching, checkpoint, dst)
        names = {entry: (name, np.dtype(params[name].dtype)) for name, entry in matching.entries.items()}
        shares: list[Any] = list(shares_of(plan, checkpoint, names=names, dec_key=dec_key, dec_mode=dec_mode))
        if not group.sees([file.path for file in checkpoint.files]):
            shares = [GivenShare(share.read()) for share in shares]
    strategy = Strategy(
        {
            name: dst[name] if dst is not None else Layout.replicated(1, len(params[name].shape))
            for name in matching.entries
        },
        {name: params[name].shape for name in matching.entries},
        plan.dst_count,
    )
    held = tuple(share.nbytes for share in shares)
    remember(network, PlacedNet(group, group.place(shares), strategy))
    return LoadResult(
        plan, strategy, matching.renamed, matching.converted, matching.unused, matching.missing, held
    )


@dataclass(frozen=True)
class GivenShare:
    """A share that this process read, for cards that do not see its files."""

    values: dict[str, NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the shards."""
        return sum(v.nbytes for v in self.values.values())

    def read(self) -> dict[str, NDArray[Any]]:
        """The shards."""
        return self.values


class _Matching:
    """Which entry of the files each parameter of the net takes."""

    def __init__(
        self,
        params: Mapping[str, Parameter],
        checkpoint: Checkpoint,
        strict: bool,
        name_map: Mapping[str, str],
        allow_missing: Sequence[str],
    ) -> None:
        self.checkpoint = checkpoint
        self.entries: dict[str, str] = {}
        self.converted: dict[str, str] = {}
        mapped = {name: entry for entry, name in name_map.items()}
        lost = []
        for name, param in params.items():
            entry = self._entry(mapped.get(name, name), strict)
            if entry is not None:
                self._check(name, param, entry, strict)
                self.entries[name] = entry
            elif any(fnmatch.fnmatchcase(name, pattern) for pattern in allow_missing):
                lost.append(name)
            else:
                raise CheckpointError(
                    f"{name}: the files have no entry for this parameter of the net; they have "
                    f"{listed(checkpoint.tensors)}. Pass name_map={{entry: {name!r}}}, or "
                    f"allow_missing=[{name!r}] to leave it as it is"
                )
        self.missing = tuple(lost)
        self.renamed = {name: entry for name, entry in self.entries.items() if name != entry}
        self._check_unique()
        self.unused = tuple(n for n in checkpoint.tensors if n not in self.entries.values())

    def _entry(self, name: str, strict: bool) -> str | None:
        tensors = self.checkpoint.tensors
        if name in tensors or strict:
            return name if name in tensors else None
        near = [
            entry
            for entry, record in tensors.items()
            if record.kind != "state" and (_is_affixed(entry, name) or _is_affixed(name, entry))
        ]
        if len(near) > 1:
            raise CheckpointError(
                f"{name}: the files have no entry of this name, and more than one that is near: "
                f"{', '.join(near)}; say which by name_map"
            )
        return near[0] if near else None

    def _check(self, name: str, param: Parameter, entry: str, strict: bool) -> None:
        record = self.checkpoint.tensors[entry]
        if record.shape != param.shape:
            raise CheckpointError(
                f"{name}: the net has shape {list(param.shape)}, but the files' {entry} has {list(record.shape)}; "
                "the checkpoint is of another net, or the training strategy is missing"
            )
        if record.dtype == param.dtype:
            return
        kinds = [_kind(record.dtype), _kind(np.dtype(param.dtype))]
        if strict or kinds[0] != kinds[1]:
            raise CheckpointError(
                f"{name}: the net has dtype {param.dtype}, but the files' {entry} has {record.dtype}"
                + ("; strict_load=False converts it" if kinds[0] == kinds[1] else "; these are not converted")
            )
        self.converted[name] = str(record.dtype)

    def _check_unique(self) -> None:
        taken: dict[str, str] = {}
        for name, entry in self.entries.items():
            if entry in taken:
                raise CheckpointError(
                    f"{name} and {taken[entry]} would both take the files' {entry}; say which by name_map"
                )
            taken[entry] = name


def _is_affixed(longer: str, shorter: str) -> bool:
    return longer.endswith(f".{shorter}") or longer.startswith(f"{shorter}.")


def _kind(dtype: np.dtype[Any]) -> str:
    if dtype.kind in "iu":
        return "integer"
    return "float" if dtype.kind == "f" or dtype.name.startswith(("bfloat", "float")) else dtype.name


def _predict_strategy(given: Any, params: Mapping[str, Parameter], names: Sequence[str]) -> Strategy | None:
    """The destination, checked against the net."""
    if given is None:
        return None
    if isinstance(given, PredictLayout):
        strategy = given.strategy
    elif isinstance(given, Strategy | str | os.PathLike):
        strategy = as_strategy(given)
    else:
        strategy = strategy_from_tuples(given)
    for name in names:
        if name not in strategy:
            raise CheckpointError(
                f"{name}: the predict strategy has no layout for this parameter of the net; it names "
                f"{listed(strategy)}. Infer it again with model.infer_predict_layout"
            )
        known = strategy.shapes.get(name)
        if known is not None and known != params[name].shape:
            raise CheckpointError(
                f"{name}: the predict strategy is for shape {list(known)}, but the net has "
                f"{list(params[name].shape)}; infer it again with model.infer_predict_layout"
            )
    return strategy


def _planned(matching: _Matching, checkpoint: Checkpoint, dst: Strategy | None) -> ReshardPlan:
    records = {entry: checkpoint.tensors[entry] for entry in matching.entries.values()}
    src = Strategy(
        {n: r.layout for n, r in records.items()}, {n: r.shape for n, r in records.items()}, checkpoint.ranks
    )
    target = None
    if dst is not None:
        layouts = {entry: dst[name] for name, entry in matching.entries.items()}
        target = Strategy(layouts, ranks=dst.ranks)
    return plan_reshard(src, target, dtypes={n: r.dtype for n, r in records.items()}, same_cards=False)


def load_slices(placed: PlacedNet, paths: Sequence[Path]) -> None:
    """Put the values of slice files that the cards wrote back on the cards."""
    with open_checkpoint([os.fspath(p) for p in paths], placed.strategy) as checkpoint:
        plan = plan_reshard(
            checkpoint.strategy,
            placed.strategy,
            dtypes={n: r.dtype for n, r in checkpoint.tensors.items()},
            same_cards=False,
        )
        placed.group.replace(placed.placement, shares_of(plan, checkpoint))


def load_checkpoint(
    ckpt_file_name: PathLike,
    net: Cell | None = None,
    strict_load: bool = False,
    filter_prefix: str | Sequence[str] | None = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    crc_check: bool = False,
) -> dict[str, Any]:
    """Read one file whole: name -> Parameter (text entries: the text), and into `net` if one is given.

    Raises
    ------
    CheckpointFileError, CheckpointError
        If the file is missing, damaged, encrypted with another key, or does not fit the net.
    """
    prefixes = (filter_prefix,) if isinstance(filter_prefix, str) else tuple(filter_prefix or ())
    out: dict[str, Any] = {}
    with open_slice(ckpt_file_name, dec_key=dec_key, dec_mode=dec_mode, crc_check=crc_check) as file:
        for name, entry in file.entries.items():
            if not name.startswith(prefixes) or not prefixes:
                out[name] = file.text(name) if entry.is_text else Parameter(file.read(name), name)
    if prefixes and not out:
        raise CheckpointError(
            f"nothing is left of {os.fspath(ckpt_file_name)} after filter_prefix={prefixes}; filter less"
        )
    if net is not None:
        load_param_into_net(net, out, strict_load)
    return out


def load_param_into_net(
    net: Cell, parameter_dict: Mapping[str, Any], strict_load: bool = False
) -> tuple[list[str], list[str]]:
    """Set a net's parameters; gives the names that were not loaded, of the net and of the dict.

    Raises
    ------
    CheckpointError
        If a shape differs, or a dtype that may not be converted.
    """
    params = net.parameters_dict()
    for name, param in params.items():
        if name not in parameter_dict:
            continue
        value = parameter_dict[name]
        array = value.asnumpy() if isinstance(value, Parameter | Tensor) else np.asarray(value)
        same_kind = _kind(array.dtype) == _kind(np.dtype(param.dtype))
        if array.shape != param.shape or not same_kind or (strict_load and array.dtype != param.dtype):
            raise CheckpointError(
                f"{name}: the net has shape {list(param.shape)} and dtype {param.dtype}, the checkpoint "
                f"{list(array.shape)} and {array.dtype}"
            )
        param.set_data(array)
    return [n for n in params if n not in parameter_dict], [n for n in parameter_dict if n not in params]


def save_checkpoint(
    save_obj: Any,
    ckpt_file_name: PathLike,
    integrated_save: bool = True,
    async_save: bool = False,
    append_dict: Mapping[str, Any] | None = None,
    enc_key: bytes | None = None,
    enc_mode: str = "AES-GCM",
    format: str = "ckpt",
    crc_check: bool = False,
) -> None:
    """Write a net, a mapping of name to value, or a list of {"name", "data"}, whole, to one file.

    Parameters
    ----------
    integrated_save, async_save
        Accepted for MindSpore's scripts; the values are merged, and the file is there on return.
    append_dict
        Further entries: numbers, texts, Tensors.

    Raises
    ------
    ArgumentTypeError
        If `save_obj` is of another kind.
    CheckpointFileError, CheckpointError
        If the file cannot be written.
    """
    if isinstance(save_obj, Cell):
        values: dict[str, Any] = dict(save_obj.parameters_dict())
    elif isinstance(save_obj, Mapping):
        values = dict(save_obj)
    elif isinstance(save_obj, list) and all(
        isinstance(i, Mapping) and {"name", "data"} <= i.keys() for i in save_obj
    ):
        values = {item["name"]: item["data"] for item in save_obj}
    else:
        raise ArgumentTypeError(
            f"save_obj is a Cell, a mapping of name to value or a list of {{'name', 'data'}}, not {save_obj!r:.60}"
        )
    values |= dict(append_dict or {})
    arrays = {name: _saved_value(value) for name, value in values.items()}
    save_slice(ckpt_file_name, arrays, format=format, enc_key=enc_key, enc_mode=enc_mode, crc_check=crc_check)


def _saved_value(value: Any) -> Any:
    if isinstance(value, Parameter | Tensor):
        return value.asnumpy()
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    # MindSpore keeps a plain float as Float32, and a plain int as Int64.
    return array.astype(np.float32) if isinstance(value, float) else array


def build_searched_strategy(strategy_filename: PathLike) -> Strategy:
    """The layouts of a training strategy file, by parameter.

    Raises
    ------
    ContextError
        If no file is named.
    CheckpointFileError, CheckpointError
        If it is missing or damaged.
    """
    if not strategy_filename:
        raise ContextError("build_searched_strategy needs the name of a strategy file")
    return as_strategy(strategy_filename)
