"""What this node is to the others: its address, and the GPUs that Slurm has granted on it."""

from __future__ import annotations

import os
import socket

import psutil

_ANYWHERE = "192.0.2.1"
"""A documentation address (RFC 5737): asked for the way there, the kernel names the default route's address."""


class NetworkError(ValueError):
    """This node has no address that others could use."""


def gpus_granted() -> int:
    """By Slurm's word."""
    return int(os.environ.get("SLURM_GPUS_ON_NODE", 0))


def own_address(*, interface: str | None, towards: str | None = None) -> str:
    """The IPv4 address of `interface`; without one, that by which this node reaches the host `towards`.

    Nothing is sent. Raises NetworkError.
    """
    if interface is not None:
        return _address_of(interface)
    for destination in (towards, _ANYWHERE):
        if destination and (address := _route_to(destination)):
            return address
    raise NetworkError(f"{socket.gethostname()} has no route to other hosts; name network_interface in the profile")


def _address_of(interface: str) -> str:
    known = psutil.net_if_addrs()
    for address in known.get(interface, ()):
        if address.family == socket.AF_INET:
            return str(address.address)
    raise NetworkError(
        f"network_interface: {socket.gethostname()} has no IPv4 address on {interface}; "
        f"it has the interfaces {', '.join(sorted(known))}"
    )


def _route_to(destination: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((destination, 9))
        except OSError:  # Not a name that resolves, or nowhere to be reached.
            return None
        return str(probe.getsockname()[0])
