"""State of the process: what modules and classes keep between calls is listed in CONTRIBUTING.md, with its reason."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "distinfer_lab"
KEEPERS = {
    "ContextVar",
    "Condition",
    "Event",
    "ExitStack",
    "Lock",
    "OrderedDict",
    "RLock",
    "SimpleQueue",
    "WeakKeyDictionary",
    "WeakSet",
    "WeakValueDictionary",
    "count",
    "defaultdict",
    "deque",
    "dict",
    "list",
    "set",
}
LITERALS = ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp
"""In capitals they are constants."""


def last_name(node):
    """`Lock` of `threading.Lock`, `WeakKeyDictionary` of `WeakKeyDictionary[str, int]`."""
    return ast.unparse(node).partition("[")[0].rpartition(".")[2]


def is_state(name, value):
    """Whether what a name is bound to changes later."""
    if isinstance(value, ast.Call):
        return last_name(value.func) in KEEPERS
    return isinstance(value, LITERALS) and name.startswith("_") and name.strip("_").islower()


def remembers(function):
    """Whether a function is made to give for ever what it gave first."""
    return not function.args.args and any(last_name(d) == "cache" for d in function.decorator_list)


def kept_by(body):
    """The names to which a module or class binds something that changes."""
    for node in body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if is_state(name, node.value) and not name.startswith("__"):
                yield name
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{name}" for name in kept_by(node.body))
        if isinstance(node, ast.FunctionDef):
            yield from [node.name] if remembers(node) else []
            yield from (n for inner in ast.walk(node) if isinstance(inner, ast.Global) for n in inner.names)


def test_what_the_process_keeps_is_listed():
    """Every module-level or class-level value that changes has a row, and every row is about one that is there."""
    found = {
        f"{path.relative_to(PACKAGE).with_suffix('').as_posix()}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in kept_by(ast.parse(path.read_text()).body)
    }
    table = (
        (ROOT / "CONTRIBUTING.md").read_text().partition("## State of the process")[2].partition("\n## ")[0]
    )
    listed = {
        f"{module}: {name}"
        for module, names in re.findall(r"^\| `([\w/]+)`: ([^|]*?) *\|", table, re.MULTILINE)
        for name in re.findall(r"`([\w.]+)`", names)
    }
    assert found == listed
