"""URIs of stores: locations below them, and secrets in them, which are found and removed from text.

A URI with a password or a signed query is a secret as a whole. As a setting it would be written into runs,
ledgers, bundles and job lists, so it is refused. Text from libraries may show a URI that the user did not
give (a redirect to a signed address, a proxy); it is shown without the secret part.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

STORE_CREDENTIALS = (
    "put the credentials where the store's library looks for them: the environment (AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, for a "
    "scheme of fsspec FSSPEC_<SCHEME>_<ARGUMENT>), ~/.aws/credentials or ~/.config/fsspec/"
)
"""Hint: the places where the libraries of stores look for credentials."""

# A scheme, a user and the colon before the password. A bucket has no port, so any colon before an @ counts;
# elsewhere digits only are a port. A password may contain an unescaped slash (keys of AWS do).
_BUCKET_USER = r"(?:s3a?|gc?s|abfss?|az|adl|wasbs?|oss|r2|b2):/{1,2}[^/?#@:\s]*(?::|%3a)"
_SERVER_USER = r"[a-z][a-z0-9+.-]*:/{1,2}[^/?#@:\[\]\s]*(?::|%3a)(?!\d{1,5}(?:[/?#,;\s'\"]|$))"
# In an HTTP URI a user without a password is a token.
_HTTP_USER = r"(?:https?|wss?):/{1,2}[^/?#@\s]+(?=@)"
_USER = f"(?:{_BUCKET_USER}|{_SERVER_USER}|{_HTTP_USER})"
_PASSWORD = re.compile(f"{_USER}.*?@", re.IGNORECASE | re.DOTALL)
_SHOWN_PASSWORD = re.compile(rf"({_USER})[^\s'\"]*@", re.IGNORECASE)
_BARE_PASSWORD = re.compile(r"[^\s/@:]+:[^\s@]+@")
_PARAMETER = re.compile(r"(?<=[?&;#])([^=?&;#\s'\"]+)=(?=[^&;#\s'\"])")
_SHOWN_PARAMETER = re.compile(_PARAMETER.pattern + r"([^&;#\s'\"]+)")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")

_SECRET_WORDS = {"auth", "authorization", "jwt", "key", "pass", "pw", "pwd", "sas", "sig"}
_SECRET_PARTS = (
    *("accessid", "accesskey", "accountkey", "apikey", "authkey", "bearer", "credential", "passphrase"),
    *("passwd", "password", "privatekey", "secret", "sharedkey", "signature", "signingkey", "token"),
)
_PLAIN_ENDINGS = ("env", "file", "kind", "method", "mode", "path", "type")  # token_file: a place, no token
_SHARED_ACCESS = {"sv", "se", "sp"}
"""Parameters of a shared access signature of Azure: version, expiry, permissions."""


def is_uri(location: str) -> bool:
    """Return whether `location` is a URI, such as s3://bucket/folder, and not a local path."""
    return "://" in location


def below(location: str, *names: str) -> str:
    """Return the location of a file or folder below the folder `location`, a local path or a URI, whose
    options (after "?") are kept."""
    path, mark, options = location.partition("?") if is_uri(location) else (location, "", "")
    return "/".join([path.rstrip("/"), *names]) + mark + options


def last_name(location: str) -> str:
    """Return the last name in the path of `location`, a local path or a URI."""
    path = location.partition("?")[0] if is_uri(location) else location
    return path.rstrip("/").rpartition("/")[2]


def secret_in(text: str) -> str | None:
    """Describe the secret in the URIs in `text` ("a user and password", "the parameter sig"); None if there
    is none."""
    if "://" not in (text := _decoded(text)):
        return None
    if _PASSWORD.search(text):
        return "a user and password"
    names = [match[1] for match in _PARAMETER.finditer(text)]
    if secret := next(filter(is_secret_name, names), None):
        return f"the parameter {secret}"
    return "a shared access signature" if len(_SHARED_ACCESS.intersection(names)) > 1 else None


def may_hold_secret(text: str) -> bool:
    """Return whether `text` contains a URI with a secret, or `user:password@host` without a scheme."""
    return secret_in(text) is not None or _BARE_PASSWORD.search(_decoded(text)) is not None


def is_secret_name(name: str) -> bool:
    """Return whether a parameter of this name holds a secret: X-Amz-Signature, access_key, AWSAccessKeyId."""
    words = [word.lower() for word in _WORD.findall(_decoded(name))]
    if not words or words[-1] in _PLAIN_ENDINGS:
        return False
    joined = "".join(words)
    return not _SECRET_WORDS.isdisjoint(words) or any(part in joined for part in _SECRET_PARTS)


def without_secrets(text: str) -> str:
    """Return `text` with `***` instead of passwords in URIs and values of secret parameters."""
    if ":/" in text:  # pathlib makes one slash of two
        text = _SHOWN_PASSWORD.sub(_hide_user, text)
    # Also without a scheme: libraries show only the path and the query of a request.
    return _SHOWN_PARAMETER.sub(_hide_value, text)


def _hide_user(match: re.Match[str]) -> str:
    return f"{match[1].partition(':')[0]}://***@"


def _hide_value(match: re.Match[str]) -> str:
    if is_secret_name(match[1]):
        return f"{match[1]}=***"
    return f"{match[1]}={_SHOWN_PARAMETER.sub(_hide_value, match[2])}"  # a URI may be a value


def _decoded(text: str) -> str:
    """Return `text` without percent escapes, also if it is escaped twice (a URI inside a query)."""
    for _ in range(3):
        if (plain := unquote(text)) == text:
            break
        text = plain
    return text
