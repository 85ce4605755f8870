"""The one reader of untrusted paths, JSON and numbers, and the one way to show a name."""

import html
import json
import os
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distinfer_lab.errors import CheckpointError, CheckpointFileError, DistinferError, listed
from distinfer_lab.text import escape, printable, shown
from distinfer_lab.untrusted import (
    DEEPEST,
    check_shape,
    open_regular,
    parse_json,
    read_file,
    read_int,
    read_shape,
)

ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_a_shown_text_has_no_character_that_a_terminal_obeys(text):
    """Twice is as once, and what can be printed already stays."""
    found = printable(text)
    assert found.isprintable()
    assert printable(found) == found
    assert text != found or text.isprintable()


@given(ANY_TEXT)
def test_an_escaped_text_is_well_formed_xml(text):
    """As content and as an attribute, whatever the characters; and can be encoded."""
    found = ElementTree.fromstring(f'<svg a="{escape(text)}">{escape(text)}</svg>'.encode())
    assert html.unescape(escape(text)).replace("\r", "\n") == (found.text or "")


@given(ANY_TEXT)
def test_an_error_shows_what_it_names(text):
    """Its lines stay lines; nothing else of a name reaches a terminal."""
    for error in (DistinferError(text), CheckpointFileError(text), CheckpointError(f"a\n{text}")):
        assert all(line.isprintable() for line in str(error).split("\n"))
    assert listed([text]).isprintable()


def test_a_value_is_shown_short_whatever_its_size():
    """Also one that is nested more deeply than Python writes."""
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, [10**4000] * 1000, {"a": "x" * 10**6}, "\x1b"):
        assert len(shown(value)) < 1000
        assert shown(value).isprintable()


def test_only_regular_files_are_opened_and_nothing_waits(tmp_path):
    """A FIFO without a writer, a device, a folder, and paths that no system has."""
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", "/dev/zero", tmp_path, "a\0b", "\ud800", tmp_path / ("x" * 5000)):
        with pytest.raises(OSError) as caught:
            open_regular(path)
        assert caught.value.strerror
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "link").symlink_to("file")
    assert read_file(tmp_path / "link", 4) == b"1234"
    with pytest.raises(OSError, match="4 bytes, and at most 3 are accepted"):
        read_file(tmp_path / "file", 3)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[1e999]", "the number 1e999 is too large"),
        (b"9" * 5000, "digits"),
        (b'{"a": 1, "b": {"x": 1, "x": 2}}', "the name 'x' is there twice"),
        (b'["\xff"]', "not UTF-8 text"),
        (b'["\\udc00"]', "half a surrogate pair"),
        (b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1), f"nested more than {DEEPEST} deep"),
        (b"[" * 10**5, "nested too deeply"),
        (b'{"a":' * 500 + b'"[[{"' + b"}" * 500, f"nested more than {DEEPEST} deep"),
        (b"[" + b"[]," * 10**6 + b"[]]", "consists of empty lists"),
        (b"", "Expecting value"),
    ],
)
def test_json_that_readers_may_understand_differently_is_refused(data, text):
    """Or that would take much more memory than its size."""
    with pytest.raises(ValueError, match=text):
        parse_json(data)


def test_json_that_is_right_is_read():
    """Brackets in a text are no nesting, a pair of surrogates is a character, and infinities where they are usual."""
    assert parse_json(b'\xef\xbb\xbf{"[[{": ["\\ud83d\\ude00", -1, 0.5]}') == {"[[{": ["\U0001f600", -1, 0.5]}
    assert parse_json(b"[Infinity]", finite=False) == [float("inf")]
    deep = b"[" * DEEPEST + b'"' + b"[" * 100 + b'"' + b"]" * DEEPEST
    assert str(parse_json(deep)).count("[") == DEEPEST + 100


def test_equal_objects_are_shared_where_that_is_asked_for():
    """Only small ones that are equal to the kind of each number; and a name that is there twice is refused."""
    texts = [
        '{"a": [1, 2]}',
        '{"a": [1, 2.0]}',
        '{"a": [true, 2]}',
        '{"a": {"b": 1}}',
        f'{{"a": "{"x" * 2000}"}}',
    ]
    data = f"[{', '.join(texts * 2)}]".encode()
    found = parse_json(data, share=True)
    assert repr(found) == repr(json.loads(data)) == repr(parse_json(data))
    assert [one is other for one, other in zip(found[:5], found[5:], strict=True)] == [True] * 3 + [False] * 2
    with pytest.raises(ValueError, match="the name 'x' is there twice"):
        parse_json(b'{"a": 1, "b": {"x": 1, "x": 2}}', share=True)
    with pytest.raises(ValueError, match="too many short values"):
        parse_json(b"[" + b"1," * 10**6 + b"1]", share=True)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [1], -1, 8, 10**4000])
def test_a_number_is_an_integer_within_its_bounds(value):
    """And the error says which they are."""
    with pytest.raises(ValueError, match="rank is .*; it should be an integer from 0 to 7"):
        read_int(value, "rank", 0, 7)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ([1] * 31, "31 dims; at most 30"),
        ([0, 2**62], "larger than any array"),
        ([2**31, 2**31], "larger than any array"),
        ([0, -1], "no size may be below 0"),
        ([1.0], "a list of sizes"),
        ("11", "a list of sizes"),
    ],
)
def test_a_shape_is_one_that_an_array_can_have(shape, text):
    """A size of 0 does not excuse the others."""
    with pytest.raises(ValueError, match=text):
        read_shape(shape, "its shape", 4)
    check_shape((0, 3), "its shape", 8)
