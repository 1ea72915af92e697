"""Who a request comes from and whom it is meant for: the client's address behind trusted proxies, and the hosts that a server answers to.

A web page may reach a server that only this machine or network can reach: its own host name is made to resolve to the server's address
(DNS rebinding), or it sends requests across origins. Browsers tell both by the headers `Host` and `Origin`. Does not know keys or limits.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache

from matinee.settings.serving import ServingSettings
from serve.errors import RequestError

Headers = Iterable[tuple[bytes, bytes]]


class ClientAddresses:
    """Finds the address that the limits of a client count by."""

    def __init__(self, settings: ServingSettings) -> None:
        self._trusted = [ipaddress.ip_network(network) for network in settings.trusted_proxies]
        self._behind_haproxy = settings.haproxy

    def find(self, peer: str | None, headers: Headers) -> str | None:
        """The client's address, of IPv6 the network of 64 bits; None where it is not known, or is this machine's own.

        `X-Forwarded-For` is read from its end, for as long as the address before was a trusted proxy's: a client can invent the rest.
        """
        hops = [peer or "", *reversed([hop for value in _values(headers, b"x-forwarded-for") for hop in value.split(",")])]
        for i, hop in enumerate(hops):
            address = _address(hop)
            if address is None:
                return None
            if any(address in network for network in self._trusted):
                continue
            if address.is_loopback or (i == 0 and self._behind_haproxy):
                return None
            return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)
        return None


class TrustedHosts:
    """The hosts that a server without keys answers to: addresses, localhost, and `names`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {name.lower() for name in names}

    def check(self, headers: Headers) -> None:
        """Raises a 403 where `Host` is another name, or where `Origin` is another site."""
        headers = tuple(headers)
        hosts = [value.strip().lower() for value in _values(headers, b"host")]
        for host in hosts:
            name = _host_name(host)
            # A page that rebinds its name still sends that name: it can't send an address.
            if not (self._is_allowed(name) or name == "localhost" or name.endswith(".localhost") or _address(name)):
                raise RequestError(403, f"this server has no keys and does not answer to the host {host[:100]!r}: {_REMEDY}")
        for origin in _values(headers, b"origin"):
            site = origin.strip().lower().partition("://")[2]
            if site not in hosts and not self._is_allowed(_host_name(site)):
                raise RequestError(403, f"this server has no keys and takes no requests from pages of {origin[:100]!r}: {_REMEDY}")

    def _is_allowed(self, name: str) -> bool:
        return name in self._names or any(f"*{name[i:]}" in self._names for i, sign in enumerate(name) if sign == ".")


# DNS has no longer one.
_LONGEST_NAME = 253
_REMEDY = "add the name to serving.hosts, or set serving.keys"


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for known, value in headers if known == name]


def _host_name(host: str) -> str:
    """The host without its port; nothing where it can't be a name."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    return name if len(name) <= _LONGEST_NAME else ""


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# The longest address that is written, its brackets and port included, is shorter.
_LONGEST = 64


def _address(text: str) -> Address | None:
    """An address as proxies write it: some add the port."""
    text = text.strip()
    return _parse_address(text) if len(text) <= _LONGEST else None


# Most requests come from few addresses and to one.
@lru_cache(maxsize=1024)
def _parse_address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        try:
            address = ipaddress.ip_address(_host_name(text))
        except ValueError:
            return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address
