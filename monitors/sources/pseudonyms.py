"""Pseudonyms: what streams are called in labels, logs and journals, instead of what devices call them.

A keyed hash (BLAKE2, RFC 7693): the same name always gives the same pseudonym, and only who has the key
can find out which name it was. 60 bits: among 10,000 streams two share one with a chance of 4e-11.
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
"""Characters of a pseudonym: a to z and 2 to 7."""

_KEY_BYTES = 32
_CACHED = 65_536


class Pseudonyms:
    """Pseudonyms under one key of 16 to 64 bytes."""

    def __init__(self, key: bytes) -> None:
        if not 16 <= len(key) <= 64:
            raise ValueError(f"a key has 16 to 64 bytes, not {len(key)}")

        @lru_cache(maxsize=_CACHED)
        def pseudonym(stream: str) -> str:
            # What is asked for on the page may be no text that could be written.
            digest = blake2b(stream.encode("utf-8", "surrogatepass"), digest_size=10, key=key).digest()
            return b32encode(digest).decode("ascii").lower()[:LENGTH]

        self.of = pseudonym
        """`of(stream)`: its pseudonym, `LENGTH` characters."""


def load_or_make_key(path: Path) -> bytes:
    """The key in the file `path`, 16 to 64 bytes in hexadecimal; made, for its owner only, if there is none.

    Raises:
        SettingsError: it cannot be read or made, holds no key, or anybody may read it.
    """
    try:
        if not path.exists():
            _make_key(path)
        mode = path.stat().st_mode
        with path.open("rb") as file:
            text = file.read(1024)
    except OSError as error:
        raise SettingsError(
            f"no key for pseudonyms: {error.strerror}",
            where=str(path),
            hint="mend the rights of the file and of its folder, or name another with --set state=FOLDER",
        ) from error
    if mode & 0o007:
        raise SettingsError(
            "anybody may read the key for pseudonyms", where=str(path), hint=f"chmod 600 {path}"
        )
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if not 16 <= len(key) <= 64:
        raise SettingsError(
            "the file holds no key for pseudonyms",
            where=str(path),
            hint="restore it: with another key every stream gets another name; or delete it to begin anew",
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
            # Unlike a rename a link leaves the key of whoever was first.
            try:
                os.link(temporary, path)
            except FileExistsError:
                return
    finally:
        temporary.unlink(missing_ok=True)
