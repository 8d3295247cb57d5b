"""Token of a Ray cluster.

Ray 2.60 protects the clusters that it starts with one shared token, and its clients use it only if
RAY_AUTH_MODE says so. Anyone with the token can run code on the cluster.
"""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from genray.errors import ClusterError


def token() -> str | None:
    """Return the token for Ray clusters, from the places where Ray looks for it; None if there is none.

    Raises:
        ClusterError: RAY_AUTH_TOKEN_PATH names a file that cannot be read.
    """
    if os.environ.get("RAY_AUTH_MODE", "token").lower() != "token":
        return None
    if given := os.environ.get("RAY_AUTH_TOKEN"):
        return given.strip() or None
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        try:
            return Path(path).read_text(encoding="utf-8").strip() or None
        except OSError as error:
            raise ClusterError(
                f"the token for the Ray cluster cannot be read ({error.strerror})",
                where=path,
                hint="correct or unset RAY_AUTH_TOKEN_PATH",
            ) from error
    with suppress(OSError):
        return _file().read_text(encoding="utf-8").strip() or None
    return None


def token_refused(where: str) -> ClusterError:
    """Return the error for a cluster that does not accept `token()`."""
    return ClusterError(
        "the Ray cluster does not accept the token"
        if token()
        else "the Ray cluster requires a token, but none is set",
        where=where,
        hint=(
            "put the cluster's token into RAY_AUTH_TOKEN or ~/.ray/auth_token, or the path of "
            "its file into RAY_AUTH_TOKEN_PATH; `ray get-auth-token` prints the token on the "
            "cluster's head node"
        ),
    )


def authenticate() -> None:
    """Let the Ray of this process use the token, if there is one. An initialised Ray is not changed."""
    # Ray's usage reports stay off: a hospital's machine must not send any.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if "RAY_AUTH_MODE" not in os.environ and token() is not None:
        os.environ["RAY_AUTH_MODE"] = "token"
    if "ray" not in sys.modules:
        return

    import ray

    if not ray.is_initialized():
        # Ray read the environment at its import, and may have cached an older token.
        raylet: Any = import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def ensure_token() -> None:
    """Make a token if there is none, and `authenticate`.

    Ray would make one, too, but readable by every user of the machine.
    """
    if "RAY_AUTH_MODE" not in os.environ and token() is None:
        _make_token(_file())
    authenticate()


def _file() -> Path:
    return Path.home() / ".ray" / "auth_token"


def _make_token(file: Path) -> None:
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        draft.touch(mode=0o600)  # the owner's alone, whatever the umask
        draft.write_text(secrets.token_hex(32), encoding="utf-8")
        # Two commands may start at once: the first token stays, and no process reads half of a token.
        with suppress(FileExistsError):
            os.link(draft, file)
    except OSError as error:
        raise ClusterError(
            f"the token for the embedded Ray cannot be written ({error.strerror})",
            where=str(file),
            hint="make the folder writable, or set RAY_AUTH_TOKEN to a long random text",
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
