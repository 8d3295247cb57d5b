"""What of a URI is secret, and text without it."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from genray.errors import DataError, GenrayError
from genray.io.bad_input import BadImage, BadInput
from genray.io.store import create_store, open_store
from genray.uris import is_secret_name, may_hold_secret, secret_in, without_secrets
from tests.genray.secret_uris import with_parameter, with_user


def test_a_password_is_found_and_is_not_shown() -> None:
    for uri, password in with_user():
        assert secret_in(uri) == "a user and password", uri
        shown = without_secrets(f"Max retries exceeded with '{uri}' (caused by x)")
        assert password not in shown, uri
        assert "***@" in shown, uri


def test_a_secret_parameter_is_found_and_is_not_shown() -> None:
    for uri, value in with_parameter():
        assert (secret_in(uri) or "").startswith("the parameter "), uri
        for text in (uri, uri.partition("//host")[2]):  # libraries also show the path alone
            shown = without_secrets(f"403 for url: {text} (caused by x)")
            assert value not in shown
            assert "region=eu-west-1" in shown


def test_escapes_hide_no_secret() -> None:
    for uri, _ in (*with_user(1), *with_parameter(1)):
        scheme, _, rest = uri.partition("://")
        assert secret_in(f"{scheme}://{quote(rest, safe='/@')}"), uri
        assert secret_in(f"s3://bucket?endpoint_override={quote(quote(uri, safe=''), safe='')}"), uri


@pytest.mark.parametrize(
    "text",
    [
        "data/images",
        "/data/a:b@c/x",
        "data/x?token=abc",
        "s3://bucket/a:b@c",
        "s3://bucket/x?region=eu-west-1&scheme=http&endpoint_override=127.0.0.1:9000",
        "http://host:9000/path@v2/x",
        "http://[::1]:8080/x@y",
        "sftp://ada@host/x",
        "abfs://container@account.dfs.core.windows.net/x",
        "abfss://container@account/x?credential_kind=anonymous&tenant_id=3",
        "https://host/x?token_file=a&monkey=b&sv=1",
        "file:///a/b:c@d",
        "memory://x",
    ],
)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert secret_in(text) is None
    if "token=" not in text:
        assert without_secrets(text) == text


def test_a_user_over_http_is_a_token_and_a_shared_access_signature_is_known_by_its_parts() -> None:
    assert secret_in("https://ghp_abc@host/x") == "a user and password"
    assert secret_in("https://a.blob.core.windows.net/c?sv=2024-11-04&se=2027&sp=r") is not None
    assert may_hold_secret("ada:pw@broker:1883")
    assert not may_hold_secret("broker:1883")
    assert is_secret_name("AWSAccessKeyId")
    assert not is_secret_name("password_env")


def test_no_store_is_opened_by_a_uri_with_a_secret() -> None:
    for uri, secret in (*with_user(2), *with_parameter(2)):
        for open_it in (open_store, create_store):
            with pytest.raises(DataError, match="credentials do not belong in a URI") as caught:
                open_it(uri)
            assert secret not in str(caught.value)
            assert "AWS_ACCESS_KEY_ID" in str(caught.value)


def test_errors_and_reasons_show_no_secret_of_a_library() -> None:
    for uri, secret in (*with_user(3), *with_parameter(3)):
        text = f"cannot open {uri}: refused"
        error = GenrayError(text, where=uri, hint=text)
        assert secret not in f"{error} {error.args} {error.as_json()}"
        assert secret not in BadImage("unreadable", text).detail
        assert secret not in BadInput("a.png", "unreadable", text).detail
