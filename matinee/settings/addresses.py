"""Addresses of servers on this machine: which port is free, how they are written in a URL, and which of them no proxy may come between."""

import contextlib
import ipaddress
import socket
from urllib.parse import urlsplit

IDLE_S = 2.0
"""Seconds after which a client closes a connection without requests. Many servers do so after 5 s (uvicorn, actix), httpx too: a request
that is sent in that moment gets no answer."""
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104
"""A host that means every interface -> the one by which this machine reaches itself."""
_INSIDE = (".svc", ".local", ".internal", ".localhost")


def url_of(host: str, port: int) -> str:
    """The URL by which this machine reaches a server that binds `host`; an IPv6 address gets its brackets."""
    host = _ANY.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket on the port, or on a free one for 0. Raises `OSError` where it is taken, or the host is none of this machine."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def is_inside(url: str) -> bool:
    """Whether a URL names this machine, its network or its cluster: a proxy, which leads outside, would not find the server.

    Those are loopback addresses, names without a dot (`qdrant`), and names of clusters and local networks (`qdrant.shop.svc`). Other
    addresses may be on either side of a proxy: NO_PROXY says it.
    """
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:
        return False
    # An IPv6 address has no dots either.
    return is_loopback(host) or not {".", ":"} & set(host) or host.endswith(_INSIDE) or ".svc." in host
