"""Who a request is from, and whom it is meant for: addresses behind proxies, and names that a web page may not use."""

import pytest

from tests.serve.api.middleware_client import ENTRY, KEY, PLACES, Crowd, MiddlewareClient, answer


@pytest.mark.parametrize(
    ("client", "forwarded", "status"),
    [
        ("203.0.113.9", "", 429),
        ("203.0.113.9", "198.51.100.1", 429),
        ("203.0.113.10", "203.0.113.9", 200),
        ("10.0.0.7", "198.51.100.1, 203.0.113.9", 429),
        ("10.0.0.7", "203.0.113.9, 198.51.100.1", 200),
        ("10.0.0.7", "203.0.113.9, 10.0.0.8", 429),
        ("10.0.0.7", "203.0.113.9:4711", 429),
        ("10.0.0.7", "::ffff:203.0.113.9", 429),
        ("10.0.0.7", "", 200),
        ("127.0.0.1", "203.0.113.9", 200),
    ],
)
async def test_one_address_leaves_places_for_the_others_and_only_trusted_proxies_name_it(client: str, forwarded: str, status: int) -> None:
    crowd = Crowd()
    visit = MiddlewareClient(crowd.app, trusted_proxies=["10.0.0.0/8"], **PLACES)
    visit.scope["client"] = ("203.0.113.9", 1)
    await crowd.enter(visit, 6)
    visit.scope |= {"client": (client, 2), "headers": [(b"x-forwarded-for", forwarded.encode())] if forwarded else []}
    if status == 200:
        await crowd.enter(visit, 1)
        await crowd.end()
    else:
        await visit()
    assert visit.status == status
    await crowd.end()


async def test_an_ipv6_client_is_its_network() -> None:
    crowd = Crowd()
    visit = MiddlewareClient(crowd.app, **PLACES)
    for host in range(6):
        visit.scope["client"] = (f"2001:db8::{host}", 1)
        await crowd.enter(visit, 1)
    visit.scope["client"] = ("2001:db8::ffff", 1)
    await visit()
    assert visit.status == 429
    await crowd.end()


async def test_behind_haproxy_the_peer_is_no_client() -> None:
    crowd = Crowd()
    visit = MiddlewareClient(crowd.app, haproxy=True, **PLACES)
    visit.scope["client"] = ("10.0.0.7", 1)
    await crowd.enter(visit, 8)
    await crowd.end()
    assert visit.status == 200


OPEN_HOSTS = [
    "127.0.0.1:8000", "10.244.1.7:8000", "[::1]:8000", "[fd00::7]", "localhost", "localhost:8000", "LOCALHOST:80", "films.localhost",
    "matinee-serve-svc", "matinee-serve-svc:8000", "0.0.0.0:8000",
]  # fmt: skip


@pytest.mark.parametrize("host", OPEN_HOSTS)
@pytest.mark.parametrize("path", ["/v1/x", "/readyz", "/"])
async def test_without_keys_addresses_localhost_and_the_named_hosts_pass(host: str, path: str) -> None:
    visit = await MiddlewareClient(answer, path=path, headers=((b"host", host.encode()),), hosts=["Matinee-Serve-Svc"])()
    assert visit.status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "evil-localhost", "[evil]", "", "x" * 300],
)
@pytest.mark.parametrize("path", ["/v1/x", "/readyz", "/"])
async def test_a_page_that_rebinds_its_name_gets_nothing(host: str, path: str) -> None:
    visit = await MiddlewareClient(answer, path=path, headers=((b"host", host.encode()),))()
    assert visit.status == 403
    assert b"serving.hosts" in visit.sent[-1]["body"]


async def test_two_host_headers_must_both_be_trusted() -> None:
    visit = await MiddlewareClient(answer, headers=((b"host", b"localhost"), (b"host", b"evil.example")))()
    assert visit.status == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200),
        ("https://localhost:8000", 200),
        ("https://films.example", 200),
        ("https://films.example:8443", 200),
        ("http://localhost:3000", 403),
        ("http://localhost", 403),
        ("http://203.0.113.9", 403),
        ("https://evil.example", 403),
        ("https://films.example.evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        ("", 403),
    ],
)
async def test_without_keys_pages_of_other_sites_are_refused(origin: str, status: int) -> None:
    headers = ((b"host", b"localhost:8000"), (b"origin", origin.encode()))
    assert (await MiddlewareClient(answer, headers=headers, hosts=["films.example"])()).status == status


async def test_with_keys_the_key_decides_and_no_host() -> None:
    headers = ((b"host", b"films.example"), (b"origin", b"https://shop.example"), KEY)
    assert (await MiddlewareClient(answer, headers=headers, keys=[ENTRY])()).status == 200
