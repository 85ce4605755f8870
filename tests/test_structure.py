"""The structure of the package: no circles of imports, no reaching into others, short functions, plain words."""

import ast
import re
from pathlib import Path

import pytest

import distinfer_lab

PACKAGE = Path(distinfer_lab.__file__).parent
ROOT = PACKAGE.parent
MODULES = {
    ".".join(("distinfer_lab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}
OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
DIALECT = re.compile(
    r"\b(?:told|shall|giver|taker|afresh|anew|in words|lies as|put against)\b|gone on with", re.IGNORECASE
)


def base_of(module, level):
    """What a relative import of so many dots begins at."""
    parts = module.split(".")
    up = level if MODULES[module].name != "__init__.py" else level - 1
    return ".".join(parts[: len(parts) - up] if level else [])


def imports(module):
    """The modules that a module imports: at its head, in a function, for type checkers, by a string."""
    for node in ast.walk(TREES[module]):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, [base_of(module, node.level), node.module]))
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            given = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            dots = len(given) - len(given.lstrip("."))
            names = [".".join(filter(None, [base_of(module, dots), given.lstrip(".")]))]
        for name in names:
            found = next((n for n in prefixes(name) if n in MODULES), None)
            # The package itself imports nothing when it is loaded but what is below all.
            if found not in (None, module, "distinfer_lab"):
                yield found


def prefixes(name):
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def circles(edges):
    """The sets of modules that reach each other."""
    reach = {module: set() for module in edges}
    for module in edges:
        left = list(edges[module])
        while left:
            one = left.pop()
            if one not in reach[module]:
                reach[module].add(one)
                left += edges[one]
    return [module for module in edges if module in reach[module]]


def test_modules_import_each_other_in_no_circle():
    """Of no kind: when they load, for type checkers, within functions, by a string."""
    edges = {module: set(imports(module)) for module in MODULES if module != "distinfer_lab"}
    assert sum(map(len, edges.values())) > 1000, "imports are found at all"
    assert circles(edges) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"], "a circle is found"


def private_members(tree):
    """Private attributes of others: not of self or cls, not defined in this module, not a named tuple's."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    own |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and is_own(n)}
    own |= {
        n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and re.match(r"_[^_]", node.attr)
            and not is_own(node)
            and node.attr not in own | OF_NAMED_TUPLES
            and not ast.unparse(node.value).startswith("super()")
        ):
            yield ast.unparse(node)


def is_own(node):
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_private_members_stay_private():
    """What leans on the private parts of Dask is in one file; of everything else at most three are taken."""
    found = [
        f"{module}: {member}"
        for module, tree in TREES.items()
        if module != "distinfer_lab.cards.dask_patches"
        for member in private_members(tree)
    ]
    assert len(found) <= 3, found


def test_functions_and_modules_are_short():
    """A body has at most 40 lines, nine of ten at most 15; a module at most 450."""
    lengths = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                if body:
                    lengths[f"{module}.{node.name}:{node.lineno}"] = body[-1].end_lineno - body[0].lineno + 1
    assert {name: length for name, length in lengths.items() if length > 40} == {}
    assert sorted(lengths.values())[len(lengths) * 9 // 10] <= 15
    lines = {module: path.read_text().count("\n") for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > 450} == {}


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_use_the_words_of_the_field(path):
    """No word of the dialect that the project had."""
    assert DIALECT.findall((ROOT / path).read_text()) == []


def test_docstrings_and_messages_use_the_words_of_the_field():
    """Neither does any string of the package: docstrings, messages, labels."""
    found = [
        f"{module}:{node.lineno}: {match.group()}"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for match in DIALECT.finditer(node.value)
    ]
    assert found == []


def test_every_room_says_what_it_is_for():
    """Each folder's `__init__` opens with a docstring."""
    rooms = [module for module, path in MODULES.items() if path.name == "__init__.py"]
    assert [room for room in rooms if not ast.get_docstring(TREES[room])] == []
