"""What this machine's network has."""

import socket


def has_ipv6() -> bool:
    """Whether something can listen on the loopback address of IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True
