"""What goes straight from card to card: the doors, the ways, and the collectives over them.

channels       what programs and reshards call; it counts
collectives    the algorithms, over any way
sockets        a way between processes       hand_over      a way within one process
frames         one array on a socket         outbox         memory that processes of a host share
listener       who is let in                 windows        arrays in bounded pieces
doors          where connections begin
"""

from .channels import Channels, Counted
from .doors import Door, InProcessDoor, TcpDoor, UnixDoor, can_check_users
from .listener import ChannelClosedError, Listener

__all__ = [
    "ChannelClosedError",
    "Channels",
    "Counted",
    "Door",
    "InProcessDoor",
    "Listener",
    "TcpDoor",
    "UnixDoor",
    "can_check_users",
]
