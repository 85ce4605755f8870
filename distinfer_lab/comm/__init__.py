"""Direct communication between cards: endpoints, transports, and collectives on top of them.

The package moves numpy arrays between processes or threads that know each other's addresses. It knows no
cluster, no checkpoint and no net, and imports of this project only its errors: `cards` opens the endpoints on Dask's
workers and hands out the membership (`Epoch`). See README.md in this folder for the guarantees and how to test.

::

    channels        Channels: the calls of programs and reshards, with counters
    communicator    Communicator: the protocol that programs are written against
    collectives     the algorithms, for any transport
    traffic         what a sum sends, in elements: for predictions
    in_process      a transport for the threads of one process
    sockets         a transport between processes
    frames          one array on a socket
    shared_memory   the bodies of large arrays between processes of one host
    windows         arrays in pieces of bounded size
    listener        which connections are accepted, and the handshake
    endpoints       where connections begin: in process, Unix socket, TCP with or without TLS
    peers           addresses, and one membership of the group
    origin          the process in which something was made

What this file exports may be used by the rest of the package. The other names are for these modules and their tests.
"""

from .channels import Channels, Counted
from .communicator import Communicator
from .endpoints import Endpoint, InProcessEndpoint, TcpEndpoint, UnixEndpoint, can_check_users
from .listener import ChannelClosedError, Dialer, Listener
from .origin import Origin
from .peers import Epoch, Peer
from .traffic import reduced_elements

__all__ = [
    "ChannelClosedError",
    "Channels",
    "Communicator",
    "Counted",
    "Dialer",
    "Endpoint",
    "Epoch",
    "InProcessEndpoint",
    "Listener",
    "Origin",
    "Peer",
    "TcpEndpoint",
    "UnixEndpoint",
    "can_check_users",
    "reduced_elements",
]
