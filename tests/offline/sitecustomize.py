"""Keeps a Python process on this machine: Python imports this by itself, before anything else.

The tests put this folder on ``PYTHONPATH``, for themselves and for every process that they start.
Loopback addresses and Unix sockets work as ever; all else, looking up names included, fails as it
does without a network. An audit hook cannot be taken out again, nor gone round by a library that
has sockets of its own in Python.
"""

from __future__ import annotations

import ipaddress
import sys

FAMILIES = ("AF_INET", "AF_INET6")
"""Kinds of addresses that may lead out of this machine."""


class NetworkError(ConnectionRefusedError):
    """A test, or a process that it started, reached for the network."""


def is_here(host: object) -> bool:
    """Whether an address or a name is this machine's own."""
    import socket

    text = host.decode() if isinstance(host, bytes | bytearray) else str(host or "")
    if text in ("", "localhost", "localhost.localdomain", socket.gethostname()):
        return True
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def is_number(host: object) -> bool:
    """Whether a host is written as an address, so that nobody is asked for it."""
    try:
        ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return True


def refuse(event: str, arguments: tuple) -> None:
    """Audit hook: let only what stays on this machine pass.

    Raises:
        NetworkError: it would not.
    """
    if not event.startswith("socket."):
        return
    import socket

    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        sock, address = arguments[:2]
        families = [getattr(socket, name) for name in FAMILIES]
        reached = sock.family in families and address is not None and not is_here(address[0])
        target = address
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        target = arguments[0]
        asks = not is_number(target) or event == "socket.gethostbyaddr"
        reached = asks and not is_here(target)
    else:
        return
    if reached:
        raise NetworkError(f"tests use no network: {event} of {target!r} is refused")


if not hasattr(sys, "stays_on_this_machine"):  # a process may find this file by two ways
    sys.stays_on_this_machine = True
    sys.addaudithook(refuse)
