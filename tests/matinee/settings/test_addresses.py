"""Addresses that this machine listens on: IPv4, IPv6, every interface."""

import socket

import pytest

from matinee.settings.addresses import bound_socket, url_of
from tests.network import has_ipv6

HOSTS = {"127.0.0.1": ("127.0.0.1",), "0.0.0.0": ("127.0.0.1",), "::1": ("::1",), "::": ("::1", "127.0.0.1"), "localhost": ("localhost",)}


@pytest.mark.parametrize("host", HOSTS)
def test_a_server_is_reached_where_its_url_says(host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with bound_socket(host, 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        for name in HOSTS[host]:
            socket.create_connection((name, port)).close()
        [first, *_] = HOSTS[host]
        assert url_of(host, port) == (f"http://[{first}]:{port}" if ":" in first else f"http://{first}:{port}")
        with pytest.raises(OSError, match="in use"):
            bound_socket(host, port)
