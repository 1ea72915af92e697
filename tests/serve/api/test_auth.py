"""Keys, scopes, and who may write without any."""

import pytest

from matinee.settings.addresses import is_loopback
from matinee.settings.serving import SCOPES, KeySettings, ServingSettings
from serve.api.auth import ApiKeys, hash_key, new_key
from serve.errors import RequestError

READER, READER_ENTRY = new_key("reader", ("read",))
WRITER, WRITER_ENTRY = new_key("writer", ("read", "write"))
ADMIN, ADMIN_ENTRY = new_key("admin", ("admin",))
BROWSER, BROWSER_ENTRY = new_key("browser", ("feedback",))
KEYED = ApiKeys(ServingSettings(keys=(READER_ENTRY, WRITER_ENTRY, ADMIN_ENTRY, BROWSER_ENTRY)))


def status(access: ApiKeys, authorization: str | None, scope: str) -> int:
    try:
        access.require(access.identify(authorization), scope)  # type: ignore[arg-type]
    except RequestError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("key", "statuses"),
    [
        (READER, [200, 403, 403, 403]),
        (BROWSER, [403, 200, 403, 403]),
        (WRITER, [200, 403, 200, 403]),
        (ADMIN, [200] * 4),
        ("mat_x", [401] * 4),
    ],
    ids=["reader", "browser", "writer", "admin", "unknown"],
)
def test_scopes(key: str, statuses: list[int]) -> None:
    assert [status(KEYED, f"Bearer {key}", scope) for scope in SCOPES] == statuses


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "READER", "Basic READER", "Token READER", "Bearer \xfc", "READER Bearer"]
)
def test_headers_without_a_key_that_counts(header: str | None) -> None:
    assert status(KEYED, header and header.replace("READER", READER), "read") == 401


@pytest.mark.parametrize("header", ["bearer READER", "BEARER READER", "Bearer  READER "])
def test_headers_are_read_kindly(header: str) -> None:
    assert status(KEYED, header.replace("READER", READER), "read") == 200


def test_a_refusal_names_the_key_and_never_shows_it() -> None:
    with pytest.raises(RequestError, match="'reader' lacks the scope 'write'") as caught:
        KEYED.require(KEYED.identify(f"Bearer {READER}"), "write")
    assert READER not in str(caught.value)
    assert hash_key(READER) not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_without_keys_loopback_takes_writes(host: str) -> None:
    access = ApiKeys(ServingSettings(host=host))
    assert access.writable()
    assert [status(access, None, scope) for scope in SCOPES] == [200] * 4


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "example.org", "127.0.0.1.example.org", ""])
def test_without_keys_other_hosts_read_only(host: str) -> None:
    access = ApiKeys(ServingSettings(host=host))
    assert not is_loopback(host)
    assert not access.writable()
    assert [status(access, None, scope) for scope in SCOPES] == [200, 200, 403, 403]


def test_keys_hold_on_loopback_too() -> None:
    access = ApiKeys(ServingSettings(host="127.0.0.1", keys=(READER_ENTRY,)))
    assert not access.writable()
    assert status(access, None, "read") == 401


def test_new_keys_differ_and_only_their_hash_is_kept() -> None:
    keys = {new_key("x", ("read",))[0] for _ in range(50)}
    assert len(keys) == 50
    key, entry = new_key("x", ("read",))
    assert entry == KeySettings(name="x", sha256=hash_key(key), scopes=("read",))
    assert key not in entry.model_dump_json()
