"""Keys, which records carry to where they are used, and which nothing shows on the way."""

__all__ = ["SecretKey", "secret_key"]


class SecretKey(bytes):
    """A key that no repr shows: not its own, nor that of a record, a task's arguments or an error that it is part of.

    Examples
    --------
    >>> key = SecretKey(b"0123456789abcdef")
    >>> print(key, [key], f"{key}", key == b"0123456789abcdef")
    SecretKey(...) [SecretKey(...)] SecretKey(...) True
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "SecretKey(...)"

    __str__ = __repr__


def secret_key(key: bytes | None) -> bytes | None:
    """The key as a `SecretKey`; what is not bytes stays as it is, and is refused where it is used."""
    return SecretKey(key) if isinstance(key, bytes) else key
