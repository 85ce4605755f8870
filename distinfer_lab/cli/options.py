"""Options that several commands share: which checkpoint, and what to make of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DistinferError, EncryptionError
from ..sizes import MOST_THREADS, default_threads
from ..untrusted import parse_json, read_file
from .keys import EnvironmentKey, key_options
from .messages import message, say

if TYPE_CHECKING:
    from ..checkpoint import Checkpoint, Conversion

__all__ = [
    "PATH",
    "OutputFormat",
    "buffer_option",
    "checked_size",
    "opened",
    "planned",
    "source_options",
    "target_options",
    "threads_option",
    "wrong_call",
]

LARGEST_CONFIG = 1 << 24
PATH = click.Path(exists=True, path_type=Path)


class OutputFormat(click.ParamType):  # type: ignore[type-arg]  # click 8.2 has none
    """One of `checkpoint.FORMATS`, which are imported where they are needed: other commands start faster."""

    name = "format"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        return self._choice().get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return self._choice().convert(value, param, ctx)

    @staticmethod
    def _choice() -> "click.Choice[str]":
        from ..checkpoint import FORMATS

        return click.Choice(FORMATS)


@contextmanager
def wrong_call(option: str) -> Iterator[None]:
    """Turn an error about the value of an option into a usage error: status 2."""
    try:
        yield
    except DistinferError as err:
        context = click.get_current_context()
        text = message(err, context.command)
        raise click.UsageError(text if text.startswith(option) else f"{option}: {text}", context) from err


def _options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in the order in which `--help` lists them."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


source_options = _options(
    click.argument("src", type=PATH),
    click.option(
        "--strategy",
        type=PATH,
        help="The strategy file of SRC, or a folder with one per pipeline stage. By default the manifest of SRC is "
        "used; without one, every file is assumed to be a full copy.",
    ),
    *key_options(),
    click.option(
        "--mode", "dec_mode", default="AES-GCM", show_default=True, help="AES-GCM, AES-CBC or SM4-CBC."
    ),
    click.option("--rebuild", is_flag=True, help="Rebuild missing or damaged files from replicas."),
    click.option(
        "--without-rank",
        "without",
        multiple=True,
        type=int,
        metavar="N",
        help="Ignore this rank's file and rebuild it from replicas; may be repeated.",
    ),
    click.option(
        "--file",
        multiple=True,
        metavar="PATTERN",
        help='Use only the files of SRC whose names match, e.g. "net-9_*".',
    ),
    click.option(
        "--step",
        metavar="STEP",
        help="Which save of SRC to use: 9_100 (epoch and step) or 100; by default the newest that all ranks have.",
    ),
)


def _checked_dtype(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name of a dtype, if floats can be converted to it."""
    from ..checkpoint import float_dtype

    with wrong_call("--dtype"):
        found = float_dtype(value)
    return None if found is None else str(found)


def checked_size(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """A number of bytes as it is given, if it is one."""
    from ..sizes import size_of

    with wrong_call(param.opts[0]):
        if value is not None:
            size_of(value, param.name or "")
    return value


buffer_option = click.option(
    "--buffer",
    default="32 MiB",
    show_default=True,
    callback=checked_size,
    help="Buffer size per worker.",
)
threads_option = click.option(
    "--threads",
    default=default_threads,
    show_default=f"as many as cores, at most {MOST_THREADS}",
    type=click.IntRange(1, 256),
    help="Number of files processed concurrently.",
)


target_options = _options(
    click.option(
        "--to",
        metavar="FILE|MESH",
        help="The destination layout: a strategy file, JSON layouts, or, with --rules, a mesh such as tp=4 or "
        "dp=2,tp=4. By default one unsharded checkpoint.",
    ),
    click.option(
        "--rules",
        metavar="NAME|FILE[,...]",
        multiple=True,
        help="How the mesh axes shard the tensors: llama, gpt2, ... or a JSON file of rules (see `distinfer rules`). "
        "In llama,mine.json the rules of the file take precedence.",
    ),
    click.option(
        "--config",
        type=PATH,
        help="The model's config.json, or its folder, for --rules; by default the one in SRC.",
    ),
    click.option(
        "--states",
        default="follow",
        type=click.Choice(["follow", "replicate", "mindspore"]),
        show_default=True,
        help="The layout of optimizer states that the destination does not name: that of their parameter, unsharded, "
        "or MindSpore's (unchanged).",
    ),
    click.option(
        "--dtype",
        callback=_checked_dtype,
        help="Convert floating-point tensors, except scalars: bfloat16 (bf16), float16, float32 ... "
        "Quantised weights cannot be converted.",
    ),
    click.option(
        "--select",
        multiple=True,
        metavar="PATTERN",
        help='Entries to include, e.g. "*.weight", or exclude: "!moments.*". A star matches any text, dots included: '
        '"*v_proj.weight" matches qkv_proj.weight, "*.v_proj.weight" does not.',
    ),
    click.option(
        "--rename",
        multiple=True,
        metavar="OLD=NEW",
        help='Rename entries, e.g. "model.*=net.*"; a star matches any text. Optimizer states follow.',
    ),
    click.option(
        "--allow-missing",
        multiple=True,
        metavar="PATTERN",
        help="Tensors that the output may lack although a strategy, an index or --like names them.",
    ),
)


@contextmanager
def opened(src: Path, strategy: Path | None, dec_key: bytes | None, **options: Any) -> Iterator["Checkpoint"]:
    """Open the checkpoint that the source options name; lost, chosen and unused files are reported on stderr."""
    with _opened(src, strategy, dec_key, options) as checkpoint:
        for rank, file in checkpoint.lost.items():
            say(f"rank {rank} is lost: {file.reason}", err=True)
        for note in checkpoint.notes:
            say(f"Note: {message(note, click.get_current_context().command)}", err=True)
        yield checkpoint


def _opened(
    src: Path, strategy: Path | None, dec_key: bytes | None, options: Mapping[str, Any]
) -> "Checkpoint":
    from ..checkpoint import open_checkpoint

    if isinstance(dec_key, EnvironmentKey):
        with suppress(EncryptionError):  # it is encrypted, so the key is needed
            return open_checkpoint(src, strategy, **options)
    return open_checkpoint(src, strategy, dec_key=dec_key, **options)


def planned(
    checkpoint: "Checkpoint",
    src: Path,
    to: str | None,
    rules: tuple[str, ...],
    config: Path | None,
    states: str,
    dtype: str | None,
    select: tuple[str, ...],
    rename: tuple[str, ...],
    allow_missing: tuple[str, ...],
) -> "Conversion":
    """The plan that the target options describe; slices without a known layout have none."""
    from ..checkpoint import check_beginnings, plan_conversion, unnamed_slices
    from ..formats import NamedTensor, config_problems
    from ..rules import Rules

    names: dict[str, str] = {}
    for item in rename:
        old, sign, new = item.partition("=")
        if not (old and sign and new):
            raise click.BadParameter(f"{item!r}: write OLD=NEW", param_hint="--rename")
        names[old] = new
    destination = _destination(src, to, rules, config)
    if config is not None and isinstance(
        destination, Rules
    ):  # that of a whole source is compared when it is opened
        tensors = {name: NamedTensor(r.shape, str(r.dtype)) for name, r in checkpoint.tensors.items()}
        problems = config_problems(destination.config or {}, tensors, are_equal=checkpoint.start_equal)
        for problem in problems:
            say(f"Note: {config}: it has {problem}", err=True)
    check_beginnings(checkpoint)
    for note in unnamed_slices(checkpoint):
        say(f"Note: {note}", err=True)
    return plan_conversion(
        checkpoint,
        destination,
        states=states,
        dtype=dtype,
        select=select or None,
        rename=names,
        allow_missing=allow_missing,
    )


def _destination(src: Path, to: str | None, rules: tuple[str, ...], config: Path | None) -> Any:
    from ..formats import as_strategy
    from ..layout import Mesh
    from ..rules import Rules, read_rules

    if to is None:
        if rules:
            raise click.UsageError('--rules need a mesh: add --to "tp=4"')
        return None
    if not rules:
        if not Path(to).exists() and "=" in to:
            raise click.UsageError(f"--to {to} is a mesh: add --rules, which say what its axes cut")
        return as_strategy(to)
    of_source = (src if src.is_dir() else src.parent) / "config.json"
    found = config or (of_source if of_source.is_file() else None)
    with wrong_call("--to"):
        mesh = Mesh.parse(to)
    with wrong_call("--rules"):
        read = read_rules(rules)
    by_rules = Rules(mesh, read, None if found is None else _config(found))
    if by_rules.unknown_model_types:
        say(
            f"--rules {','.join(rules)} were not written for model_type {' '.join(by_rules.unknown_model_types)}: "
            "check the plan, or write your own rules",
            err=True,
        )
    for axis in by_rules.absent_axes:
        say(f"rules shard by {axis}, which --to {to} lacks: those dims stay whole", err=True)
    for axis in by_rules.idle_axes:
        say(f"no rule shards by {axis}: ranks along it hold the same", err=True)
    return by_rules


def _config(path: Path) -> dict[str, Any]:
    from ..json_kinds import kind_of_json

    path = path / "config.json" if path.is_dir() else path
    try:
        found = parse_json(read_file(path, LARGEST_CONFIG), finite=False)
    except (OSError, ValueError) as err:
        why = err.strerror if isinstance(err, OSError) else err
        raise click.BadParameter(f"{path}: {why}", param_hint="--config") from err
    known = kind_of_json(found, "config")
    if known or not isinstance(found, dict):
        text = f"{path}: {message(known or 'it is no JSON object', click.get_current_context().command)}"
        raise click.BadParameter(text, param_hint="--config")
    return found
