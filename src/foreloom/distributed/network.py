"""This machine as others find it: its addresses, what its name stands for, and whether a port is free."""

from __future__ import annotations

import errno
import socket
import struct


def loopback_of(address: str) -> str:
    """The loopback address that a name stands for on this machine; empty where it stands for none, or is not known
    here."""
    return next((one for one in resolve(address) if one.startswith("127.") or one == "::1"), "")


def resolve(address: str) -> list[str]:
    """The IP addresses that a name stands for on this machine, none where it is not known here."""
    try:
        return list(dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(address, None)))
    except OSError:
        return []


def interfaces() -> dict[str, str]:
    """The IPv4 address of each network interface, the loopback's left out; empty where the system does not tell."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return {}
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asked, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR of Linux
            except OSError:  # it has none
                continue
            found[name] = socket.inet_ntoa(answer[20:24])
    return {name: address for name, address in found.items() if not address.startswith("127.")}


def is_this_machine(address: str) -> bool:
    """Is it one of this machine's own?"""
    own = {*interfaces().values(), *resolve(socket.gethostname())}
    return bool(loopback_of(address) or own.intersection(resolve(address)))


def interface_towards(address: str) -> str:
    """The interface by which this machine reaches an address, or the world where that is one of its own names that it
    takes for the loopback; empty where it is the loopback itself, and where nothing leads there."""
    if address == "localhost" or address.startswith("127.") or address == "::1":
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as tried:
        try:
            tried.connect(("192.0.2.1" if loopback_of(address) else address, 9))  # a datagram's: nothing is sent
        except OSError:
            return ""
        own = tried.getsockname()[0]
    return next((name for name, its in interfaces().items() if its == own), "")


def is_free(port: int) -> bool:
    """May a process of this machine listen at a port, as rank 0 does?"""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as torch's store does
        try:
            tried.bind(("", port))
            tried.listen()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def free_port() -> int:
    """One that nobody listens at now."""
    with socket.socket() as tried:
        tried.bind(("", 0))
        return tried.getsockname()[1]
