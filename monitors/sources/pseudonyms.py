"""Pseudonyms of streams in labels, logs and journals, instead of the names that devices send.

A pseudonym is a keyed hash (BLAKE2, RFC 7693): the same name always gives the same pseudonym, and only the
owner of the key can find the name. It has 60 bits: among 10,000 streams, two share one with a probability of
4e-11.
"""

from __future__ import annotations

import os
import secrets
from base64 import b32encode
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from genray.errors import SettingsError
from genray.io.files import storage_errors

LENGTH = 12
"""Number of characters of a pseudonym, each a to z or 2 to 7."""

_KEY_BYTES = 32
_CACHED = 65_536


class Pseudonyms:
    """Pseudonyms under one key of 16 to 64 bytes."""

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= 64:
            raise ValueError(f"a key must have 16 to 64 bytes, not {len(key)}")

        @lru_cache(maxsize=_CACHED)
        def pseudonym(stream: str) -> str:
            # A name from the page may contain lone surrogates, which cannot be encoded otherwise.
            digest = blake2b(stream.encode("utf-8", "surrogatepass"), digest_size=10, key=key).digest()
            return b32encode(digest).decode("ascii").lower()[:LENGTH]

        self.of = pseudonym
        """Function from the name of a stream to its pseudonym of `LENGTH` characters."""


def load_or_make_key(path: Path) -> bytes:
    """Return the key in the file `path`, 16 to 64 bytes in hexadecimal; create it, readable only by its
    owner, if there is none.

    Raises:
        SettingsError: it cannot be read or created, contains no key, or anybody may read it.
    """
    try:
        if not path.exists():
            _make_key(path)
        mode = path.stat().st_mode
        with path.open("rb") as file:
            text = file.read(1024)
    except OSError as error:
        raise SettingsError(
            f"cannot read or create the key for pseudonyms: {error.strerror}",
            where=str(path),
            hint="correct the permissions of the file and its folder, or set another: --set state=FOLDER",
        ) from error
    if mode & 0o007:
        raise SettingsError(
            "the key for pseudonyms is readable by everybody", where=str(path), hint=f"chmod 600 {path}"
        )
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if not 16 <= len(key) <= 64:
        raise SettingsError(
            "the file contains no key for pseudonyms",
            where=str(path),
            hint="restore it from a backup, or delete it: a new key gives every stream a new pseudonym",
        )
    return key


def _make_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with storage_errors(path):
            # The owner's alone, whatever the umask: with it a pseudonym is as good as a name.
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(os.urandom(_KEY_BYTES).hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, does not replace a key that another process has just created.
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
    finally:
        temporary.unlink(missing_ok=True)
