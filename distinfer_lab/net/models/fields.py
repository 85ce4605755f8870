"""The fields of a model's `config.json`, which may come from anywhere: types and bounds are checked."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import ArgumentTypeError, GraphError, Option
from ...text import shown
from ...untrusted import parse_json, read_file

__all__ = ["MOST_LAYERS", "Fields", "read_config"]

LARGEST_CONFIG = 1 << 24

MOST_LAYERS = 512
"""Of a net: each takes 1 ms to build, so that a file of 150 bytes cannot keep one busy. Llama 3.1 405B has 126."""

Config = Mapping[str, Any] | str | os.PathLike[str]


def read_config(given: Config) -> Mapping[str, Any]:
    """A configuration: a mapping, a `config.json`, or the folder that holds one.

    Raises
    ------
    ArgumentTypeError
        If it is something else.
    GraphError
        If the file cannot be read, or holds no JSON object.
    """
    if isinstance(given, Mapping):
        return given
    if not isinstance(given, str | os.PathLike):
        raise ArgumentTypeError(
            f"a configuration is a mapping, a config.json or its folder, not {type(given).__name__}"
        )
    path = Path(given)
    path = path / "config.json" if path.is_dir() else path
    try:
        found = parse_json(read_file(path, LARGEST_CONFIG), finite=False)
    except OSError as err:
        raise GraphError(
            f"{path}: {err.strerror}; give the folder that a model was saved to, or its config.json",
            file=path,
        ) from err
    except ValueError as err:
        raise GraphError(f"{path}: it is not valid JSON: {err!s:.200}", of=err, file=path) from err
    if not isinstance(found, dict):
        raise GraphError(f"{path}: a configuration is a JSON object, not {type(found).__name__}", file=path)
    return found


class Fields:
    """A configuration, read field by field; a field of None counts as missing.

    Parameters
    ----------
    config
        The fields.
    owner
        Whose they are, for error messages.
    """

    def __init__(self, config: Mapping[str, Any], owner: str) -> None:
        self._config, self._owner = config, owner

    def _value(self, name: str, default: Any) -> Any:
        value = self._config.get(name)
        value = default if value is None else value
        if value is None:
            raise self.error(name, None, "is missing; take the config.json that belongs to the weights")
        return value

    def error(self, name: str, value: object, rule: str) -> GraphError:
        """An error about a field."""
        given = "" if value is None else f"={shown(value)}"
        return GraphError(f"the configuration of {self._owner}: {name}{given} {rule}", Option(name, value))

    def has(self, name: str) -> bool:
        """Whether there is a field of this name."""
        return self._config.get(name) is not None

    def integer(self, name: str, default: int | None = None, most: int = 1 << 20) -> int:
        """A whole number from 1 to `most`."""
        value = self._value(name, default)
        if type(value) is not int or not 1 <= value <= most:
            raise self.error(name, value, f"must be a whole number from 1 to {most}")
        return value

    def number(self, name: str, default: float | None = None, least: float = 0.0) -> float:
        """A finite number above `least`."""
        value = self._value(name, default)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= least:
            raise self.error(name, value, f"must be a number above {least}")
        return float(value)

    def boolean(self, name: str, default: bool) -> bool:
        """True or false."""
        value = self._value(name, default)
        if type(value) is not bool:
            raise self.error(name, value, "must be true or false")
        return value

    def choice(self, name: str, known: Sequence[str], default: str | None = None) -> str:
        """One of the values known."""
        value = self._value(name, default)
        if value not in known:
            raise self.error(name, value, f"is not one of those supported: {', '.join(known)}")
        return str(value)

    def nested(self, name: str) -> "Fields":
        """The fields of a field that is an object; none if it is missing."""
        value = self._value(name, {})
        if not isinstance(value, Mapping):
            raise self.error(name, value, "must be an object")
        return Fields(value, f"{self._owner}, {name}")

    def refuse_unless(self, name: str, wanted: object, why: str) -> None:
        """Raise if the field is there and is not what is supported."""
        if self.has(name) and self._config[name] != wanted:
            raise self.error(name, self._config[name], why)
