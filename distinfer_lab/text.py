r"""How text that somebody else wrote is shown: names in files, paths, values that are not what they should be.

A name may hold anything: an escape sequence that moves the cursor of a terminal, a character that
turns the reading direction round, half a surrogate pair that no encoder takes.

::

    printable   on a terminal or in a message       w\x1b[2J
    escape      in HTML and SVG                     w\x1b[2J &lt;b&gt;
    shown       any value, short whatever its size  [1, 2, 3, 4, 5, 6, ...]

Code takes none of these: there a name is written by `repr`.
"""

import html
import reprlib

__all__ = ["escape", "pattern_of", "printable", "shown"]

LONGEST_SHOWN = 160

_short = reprlib.Repr()
_short.maxlevel = 3
_short.maxstring = _short.maxother = _short.maxlong = LONGEST_SHOWN


def printable(text: str, keep: str = "") -> str:
    r"""The text, with every character that is not printable written as Python's escape of it.

    Those are the control characters, the marks that change the reading direction, lone surrogates,
    line separators other than those kept, and code points that are not assigned.

    Parameters
    ----------
    keep
        Characters that stay as they are; a message of several lines keeps its newlines.

    Examples
    --------
    >>> print(printable("w\x1b[2J\n\u202e\ud800"))
    w\x1b[2J\n\u202e\ud800
    >>> print(printable("one\ntwo\r", keep="\n"))
    one
    two\r
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def escape(text: str) -> str:
    r"""The text as the content, or the quoted attribute, of an HTML or SVG element.

    No character is left that XML forbids, so a drawing stays well-formed whatever it names.

    Examples
    --------
    >>> escape("<w> & \x00\ufffe")
    '&lt;w&gt; &amp; \\x00\\ufffe'
    """
    return html.escape(printable(text, keep="\n\t"))


def shown(value: object) -> str:
    """A value as Python writes it, shortened before it is written: for values of any size and depth.

    Examples
    --------
    >>> shown(list(range(1000))), len(shown("x" * 10_000)) <= 160
    ('[0, 1, 2, 3, 4, 5, ...]', True)
    """
    return printable(_short.repr(value))[: 4 * LONGEST_SHOWN]


def pattern_of(name: str) -> str:
    """A pattern of `select` that fits a name: characters that mean something there are any character.

    >>> pattern_of("h[0].w*")
    'h?0?.w?'
    """
    return "".join("?" if c in "[]*'," or not c.isprintable() else c for c in name)
