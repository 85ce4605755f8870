"""What goes straight from card to card: the doors, the ways, and the collectives over them.

::

    channels       what programs and reshards call; it counts
    collectives    the algorithms, over any way
    sockets        a way between processes       hand_over      a way within one process
    frames         one array on a socket         outbox         memory that processes of a host share
    listener       who is let in                 windows        arrays in bounded pieces
    doors          where connections begin
"""

from .channels import Channels, Counted
from .communicator import Communicator
from .endpoints import Door, InProcessDoor, TcpDoor, UnixDoor, can_check_users
from .listener import ChannelClosedError, Listener
from .origin import Origin
from .peers import Epoch, Peer
from .traffic import reduced_elements

__all__ = [
    "ChannelClosedError",
    "Channels",
    "Communicator",
    "Counted",
    "Door",
    "Epoch",
    "InProcessDoor",
    "Listener",
    "Origin",
    "Peer",
    "TcpDoor",
    "UnixDoor",
    "can_check_users",
    "reduced_elements",
]
