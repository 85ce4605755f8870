"""Changed files: a file is parsed into a tree, fields of the tree are changed, and it is encoded again.

What the encoders write may be what no library would: a name twice, NaN, half a surrogate pair, a length that lies.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

from distinfer_lab.formats.manifest import seal

__all__ = ["WIRE_SCHEMAS", "Mutation", "mutate"]

Mutation = Callable[[bytes, Random], bytes]

INTS = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    30,
    31,
    32,
    33,
    64,
    65,
    255,
    1 << 12,
    1 << 15,
    1 << 16,
    1 << 17,
    1 << 20,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**53,
]
INTS += [2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, -1, -2, -(2**31), -(2**63), -(2**63) - 1]
TEXTS = [
    "",
    "w",
    "1",
    "0-w",
    "99999999999-w",
    "text:x",
    "__metadata__",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    ".",
    "a\0b",
]
TEXTS += [
    "\ud800",
    "\x1b[2J\x1b]0;x\x07",
    "\u202egnp.x",
    "a\nb\r\tc",
    "<script>&\"'",
    "x" * 5000,
    "[" * 300,
    "%s{0}",
    "\u0664-w",
]
TEXTS += [
    "F32",
    "F4",
    "BF16",
    "float32",
    "str",
    "Float32",
    "str",
    "moments.w",
    "rank_0/checkpoint_0.ckpt",
    "*",
    "tp",
]
RAWS = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e-999",
    "0.5",
    "2.0",
    "1e308",
    "9" * 5000,
    "[" * 2000,
    "01",
    "-0",
]
RAWS += [
    "[" * 60 + "]" * 60,
    '{"a":' * 40 + "1" + "}" * 40,
    '"\\ud800"',
    '"\\u0000"',
    "[" + "0," * 3000 + "0]",
]
RAWS += ["[" + "[]," * 3000 + "[]]", "null", "true", "false", "[]", "{}", "[null]", '{"a":1}', "[[0,-1],[2]]"]


class Raw(str):
    """Text that goes into JSON as it is."""

    __slots__ = ()


class Object(list):  # type: ignore[type-arg]
    """A JSON object as a list of [name, value]; a name may be there twice."""


def parse_json(data: bytes) -> Any:
    return json.loads(data, object_pairs_hook=lambda pairs: Object(list(pair) for pair in pairs))


def encode_json(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Object):
        return "{" + ",".join(f"{json.dumps(str(n))}:{encode_json(v)}" for n, v in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode_json, value)) + "]"
    return json.dumps(value)


def _containers(value: Any) -> Iterator[list[Any]]:
    """The lists and objects of a tree, outermost first."""
    if isinstance(value, list):
        yield value
        for item in value:
            yield from _containers(item[1] if isinstance(value, Object) else item)


def any_json(random: Random) -> Any:
    kind = random.randrange(4)
    if kind == 0:
        return random.choice(INTS)
    if kind == 1:
        return random.choice(TEXTS)
    return Raw(random.choice(RAWS))


def near(value: int, random: Random) -> int:
    return random.choice(
        [value + 1, value - 1, -value, value * 2, value << 32, value + 2**31, random.choice(INTS)]
    )


def _change_json(root: Any, random: Random) -> Any:
    """Change one thing in a tree, in place where possible."""
    places = [c for c in _containers(root) if c]
    if not places or random.random() < 0.01:
        return any_json(random)
    place = random.choice(places)
    at = random.randrange(len(place))
    in_object = isinstance(place, Object)
    kind = random.randrange(9)
    if kind == 0:
        del place[at]
    elif kind == 1:
        place.insert(at, list(place[at]) if in_object else place[at])
    elif kind == 2 and in_object:
        place[at][0] = random.choice([*TEXTS, place[random.randrange(len(place))][0]])
    elif kind == 3 and in_object:
        place.append([random.choice(TEXTS), any_json(random)])
    elif kind == 4:
        other = random.choice(places)
        where = random.randrange(len(other))
        _set(place, at, _get(other, where))
        if any(_get(other, where) is c for c in _containers(place)) and place is other:
            return root
    elif isinstance(_get(place, at), int) and kind < 8:
        _set(place, at, near(_get(place, at), random))
    else:
        _set(place, at, any_json(random))
    return root


def _get(place: list[Any], at: int) -> Any:
    return place[at][1] if isinstance(place, Object) else place[at]


def _set(place: list[Any], at: int, value: Any) -> None:
    if isinstance(value, list):  # a copy, so that no tree holds itself
        value = parse_json(encode_json(value).encode()) if _is_plain(value) else Raw(encode_json(value))
    if isinstance(place, Object):
        place[at][1] = value
    else:
        place[at] = value


def _is_plain(value: Any) -> bool:
    if isinstance(value, Raw):
        return False
    if isinstance(value, Object):
        return all(_is_plain(v) for _, v in value)
    return not isinstance(value, list) or all(map(_is_plain, value))


def json_text(data: bytes, random: Random) -> bytes:
    root = parse_json(data)
    for _ in range(random.choice([1, 1, 1, 2, 3, 5])):
        root = _change_json(root, random)
    return encode_json(root).encode("utf-8", "surrogatepass")


def manifest(data: bytes, random: Random) -> bytes:
    """JSON text whose last name is that of its own digest, which is right mostly."""
    content, name, _ = json_text(data, random).rpartition(b'"xxh3_128":"')
    return seal(content + name) if random.random() < 0.9 else content + name


def json_lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines()
    at = random.randrange(len(lines))
    lines[at] = json_text(lines[at], random)
    return b"\n".join(lines) + random.choice([b"\n", b"", b"\n[", b"\n" + b"[" * 3000])


def safetensors(data: bytes, random: Random) -> bytes:
    length = int.from_bytes(data[:8], "little")
    header = json_text(data[8 : 8 + length], random)
    said = len(header) if random.random() < 0.9 else near(len(header), random)
    return struct.pack("<Q", said & (2**64 - 1)) + header + data[8 + length :]


Schema = Mapping[int, Any]
WIRE_SCHEMAS: Mapping[str, Schema] = {
    "ckpt": {1: {1: None, 2: {1: None, 2: None, 3: None}}},
    "strategy": {
        2: {1: None, 2: {1: None, 2: {1: None}}},
        3: {1: None, 2: {1: {1: None}, 2: {1: None}, 3: {1: None}, 4: {1: None}}},
    },
}


def _varint(value: int) -> bytes:
    value &= 2**70 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def parse_wire(data: bytes, schema: Schema) -> list[list[Any]]:
    """The fields of a message, each [number, wire type, value]; what the schema knows as a message is parsed."""
    at, out = 0, []

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                return value

    while at < len(data):
        key = number()
        field, wire = key >> 3, key & 7
        value: Any = number()
        if wire == 2:
            at, value = at + value, data[at : at + value]
            inner = schema.get(field)
            value = parse_wire(value, inner) if inner is not None else value
        out.append([field, wire, value])
    return out


def encode_wire(fields: list[list[Any]]) -> bytes:
    out = b""
    for field, wire, value in fields:
        key = _varint(field << 3 | wire)
        if isinstance(value, int):
            out += key + _varint(value)
        else:
            content = encode_wire(value) if isinstance(value, list) else value
            out += key + _varint(len(content)) + content
    return out


def _messages(fields: list[list[Any]]) -> Iterator[list[list[Any]]]:
    yield fields
    for _, _, value in fields:
        if isinstance(value, list):
            yield from _messages(value)


def _change_wire(root: list[list[Any]], random: Random) -> None:
    places = [m for m in _messages(root) if m]
    if not places:
        return
    place = random.choice(places)
    at = random.randrange(len(place))
    field = place[at]
    kind = random.randrange(8)
    if kind == 0:
        del place[at]
    elif kind == 1:
        place[at:at] = [field] * random.choice([1, 1, 2, 70])
    elif kind == 2:
        field[0] = random.choice([0, 1, 2, 3, 4, 5, 7, 100, 2**29])
    elif kind == 3:
        field[1] = random.randrange(8)
    elif kind == 4:
        place[at] = list(random.choice(random.choice(places)))
        if any(place is inner for inner in _messages([place[at]])):
            place[at] = field
    elif isinstance(field[2], int):
        field[2] = near(field[2], random)
    elif isinstance(field[2], bytes) and len(field[2]) < 200:
        field[2] = random.choice(TEXTS).encode("utf-8", "surrogatepass")
    else:
        field[2] = random.choice(INTS)


def wire(schema: str) -> Mutation:
    def change(data: bytes, random: Random) -> bytes:
        tail = data[-17:] if data[-17:].startswith(b"crc_num") else b""
        root = parse_wire(data.removesuffix(tail) if tail else data, WIRE_SCHEMAS[schema])
        for _ in range(random.choice([1, 1, 1, 2, 3, 5])):
            _change_wire(root, random)
        return encode_wire(root) + tail

    return change


def encrypted(data: bytes, random: Random) -> bytes:
    """One of the numbers before the cipher is another."""
    at = random.choice([0, 4, 8, 16, 20, 24, 28, 44, 48])
    value = random.choice([0, 1, -1, 16, 2**31 - 1, -(2**31), len(data), 1 << 26])
    return data[:at] + struct.pack("<i", value) + data[at + 4 :]


def any_bytes(data: bytes, random: Random) -> bytes:
    out = bytearray(data)
    for _ in range(random.choice([1, 1, 2, 4])):
        at = (
            random.randrange(min(len(out), 100) + 1)
            if random.random() < 0.5
            else random.randrange(len(out) + 1)
        )
        kind = random.randrange(5)
        if kind == 0:
            del out[at:]
        elif kind == 1:
            del out[at : at + random.randrange(1, 40)]
        elif kind == 2:
            out[at:at] = random.randbytes(random.randrange(1, 12))
        elif kind == 3:
            out[at:at] = out[at : at + random.randrange(1, 60)] * random.choice([1, 2, 30])
        elif at < len(out):
            out[at] ^= random.randrange(1, 256)
    return bytes(out)


BY_FORM: Mapping[str, Mutation] = {
    "json": json_text,
    "manifest": manifest,
    "lines": json_lines,
    "safetensors": safetensors,
    "ckpt": wire("ckpt"),
    "strategy": wire("strategy"),
    "encrypted": encrypted,
}


def mutate(data: bytes, form: str, random: Random) -> bytes:
    """A file of that form, changed; nine in ten inputs keep its structure."""
    out = (any_bytes if random.random() < 0.1 else BY_FORM[form])(data, random)
    return any_bytes(out, random) if random.random() < 0.02 else out
