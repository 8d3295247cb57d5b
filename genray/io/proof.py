"""Proof that other processes see the folder or store that this process writes.

A folder of the same path may be another one on another node: what workers wrote there would be lost with the
node. So the driver writes a text that no one else can have written, and each worker reads it, and writes too.
"""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from genray.errors import GenrayError, RunError
from genray.io.store import Store, open_store
from genray.uris import is_uri

_PATIENCE_S = 3.0  # seconds that a network file system may take to show a new file
_PAUSE_S = 0.2
_MAX_BYTES = 100


@contextmanager
def written_proof(store: Store, path: str) -> Iterator[str]:
    """Write the proof to the file `path` of `store` for a `with` block; yields its text for `unseen_here`.

    Raises:
        RunError: the store does not take it.
    """
    token = secrets.token_hex(16)
    try:
        store.write(path, token.encode())
    except OSError as error:
        raise RunError(
            f"{store.root} cannot be written to ({error})",
            where=store.root,
            hint="check its permissions, its credentials and the network",
        ) from error
    try:
        yield token
    finally:
        store.delete(path)


def unseen_here(location: str, path: str, token: str) -> str | None:
    """Return why this process does not see, or cannot write, the folder or store at `location` in which the
    driver wrote `token` to the file `path`, beginning with the name of the node; None if it can."""
    problem = None
    end = time.monotonic() + (0.0 if is_uri(location) else _PATIENCE_S)
    while True:
        try:
            problem = _problem(open_store(location), path, token)
        except OSError as error:
            problem = str(error)
        except GenrayError as error:
            problem = error.what
        if problem is None or time.monotonic() >= end:
            return None if problem is None else f"{socket.gethostname()}: {problem}"
        time.sleep(_PAUSE_S)


def unseen_input(location: str, path: str) -> str:
    """Return that this process does not see `path`, a file of the inputs at `location`, as the driver."""
    return f"{socket.gethostname()}: {location} is another folder there: it does not have the driver's {path}"


def unseen_error(location: str, setting: str, problems: Sequence[str]) -> RunError:
    """Return the error for workers that do not see `location`, the value of `setting`, for the reasons
    `problems` of `unseen_here` or `unseen_input`."""
    if is_uri(location):
        hint = (
            "give every node the credentials of the store and a way to it, as with "
            "--env AWS_ACCESS_KEY_ID=... or a role of the nodes"
        )
    else:
        hint = (
            f"give a store that every node reaches, such as {setting}=s3://BUCKET/{setting}, or mount one "
            "folder at this path on every node"
        )
    if setting == "input":
        what = "the workers do not see the inputs, and would take them for broken"
    else:
        what = "the workers do not see the folder that the results are for, and these would be lost"
    return RunError(
        f"{what}:\n" + "\n".join(f"    node {problem}" for problem in dict.fromkeys(problems)),
        where=location,
        hint=hint,
    )


def _problem(store: Store, path: str, token: str) -> str | None:
    try:
        found = store.read(path, _MAX_BYTES)
    except FileNotFoundError:
        found = b""
    if found != token.encode():
        return f"{store.root} is another folder there: it does not have what the driver wrote"
    mine = f"{path}-{secrets.token_hex(8)}"
    store.write(mine, b"")
    store.delete(mine)
    return None
