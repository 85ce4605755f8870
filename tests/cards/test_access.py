"""Access: other users and other groups stay out, slow connections keep nobody out, and nothing is left behind."""

import contextlib
import multiprocessing.util
import os
import pickle
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed.utils import LoopRunner

from distinfer_lab.cards import CardGroup, dask_patches
from distinfer_lab.cards.certificates import temporary_security
from distinfer_lab.cards.private_folder import PREFIX, SCRATCH, holds_sockets, private_folder
from distinfer_lab.comm import InProcessEndpoint, TcpEndpoint, UnixEndpoint, listener
from distinfer_lab.errors import CardError

from ..comm.peers import CONTEXTS, net
from .clusters import until
from .test_group import Numbers, add_all, inputs, wanted

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_nobody(code, *arguments):
    """What code prints that runs as another user; it is given `sys.argv[1:]`."""
    become = f"import os, socket, ssl, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    done = subprocess.run(
        [sys.executable, "-c", become + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd="/",
    )
    return done.stdout


def exchange(cards):
    """An array from card 1 to card 0 of a net; gives how many seconds that took."""
    begun = time.monotonic()
    found = cards.run(
        lambda rank, channels: channels.exchange(
            {0: np.ones(3)} if rank else {}, {} if rank else {1: ((3,), np.dtype("f8"))}
        )
    )
    np.testing.assert_array_equal(found[0][1], np.ones(3))
    return time.monotonic() - begun


@pytest.mark.parametrize("way", ["sockets", "private sockets", "tls"])
@pytest.mark.parametrize("said", [b"", b"d"], ids=["nothing", "a byte"])
def test_slow_connections_keep_no_card_out(way, said):
    """Two hundred that say nothing, or a byte, and stay."""
    with net(2, way) as cards, contextlib.ExitStack() as slow:
        endpoint = cards.listeners[0]._endpoint
        for _ in range(200):
            if way == "private sockets":
                connection = slow.enter_context(endpoint.connect(endpoint.address, 10))
            else:
                connection = slow.enter_context(socket.create_connection(endpoint.address[:2], timeout=10))
            with contextlib.suppress(OSError):  # there are too many, and the oldest are closed
                connection.sendall(said)
        assert exchange(cards) < listener.HELLO_SECONDS / 2
        assert threading.active_count() < 200


@pytest.mark.parametrize("way", ["sockets", "tls"])
def test_a_greeting_has_its_time_altogether(way, monkeypatch):
    """Who sends a byte now and then is hung up on all the same, and a thread less waits."""
    monkeypatch.setattr(listener, "HELLO_SECONDS", 0.3)
    with net(1, way) as cards:
        threads = threading.active_count()
        with socket.create_connection(cards.listeners[0].address[:2], timeout=10) as slow:
            begun = time.monotonic()
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while time.monotonic() < begun + 10:
                    slow.sendall(b"\x16" if way == "tls" else b"d")
                    time.sleep(0.03)
            assert time.monotonic() - begun < 5
        assert threading.active_count() == threads


def test_a_door_outlives_a_failed_accept(monkeypatch):
    """As of a process that has no file descriptor left for a while."""
    with net(2, "sockets") as cards:
        endpoint = cards.listeners[0]._endpoint
        accept, failed = endpoint._socket.accept, threading.Event()

        class Failing:
            def accept(self):
                if not failed.is_set():
                    failed.set()
                    raise OSError(24, "Too many open files")
                return accept()

            def __getattr__(self, name):
                return getattr(listening, name)

        listening, endpoint._socket = endpoint._socket, Failing()
        socket.create_connection(endpoint.address[:2]).close()  # it waits in the one that it has
        assert failed.wait(10)
        assert exchange(cards) < listener.HELLO_SECONDS


def test_a_door_outlives_a_lack_of_threads(monkeypatch):
    """The connection that nobody can do_handshake is closed; the next one is let in."""
    with net(2, "sockets") as cards:
        endpoint = cards.listeners[0]._endpoint
        start = threading.Thread.start

        def refuse(thread):
            monkeypatch.setattr(threading.Thread, "start", start)
            raise RuntimeError("can't start new thread")

        monkeypatch.setattr(threading.Thread, "start", refuse)
        with endpoint.connect(endpoint.address, 10) as connection:
            assert connection.recv(1) == b""
        assert exchange(cards) < listener.HELLO_SECONDS


@needs_root
def test_a_private_socket_is_for_its_user():
    """Others cannot enter its folder; were it open to them, they would be hung up on before a byte is read."""
    probe = (
        "with socket.socket(socket.AF_UNIX) as knocking:\n"
        "    try:\n        knocking.connect(sys.argv[1]); print(knocking.recv(1))\n"
        "    except OSError as err:\n        print(type(err).__name__)"
    )
    with net(1, "private sockets") as cards:
        path = Path(cards.listeners[0].address.path)
        assert as_nobody(probe, path) == "PermissionError\n"
        path.parent.chmod(0o755)
        path.chmod(0o777)
        assert as_nobody(probe, path) in {"b''\n", "ConnectionResetError\n"}


def test_each_end_of_a_private_socket_checks_the_other(monkeypatch):
    """A user that poses as a card is refused as one that calls it."""
    with private_folder() as folder:
        doors = [UnixEndpoint(str(folder)) for _ in range(2)]
        arrived = []
        for endpoint in doors:
            endpoint.open(arrived.append)
        doors[0].connect(doors[1].address, 10).close()
        until(lambda: arrived)
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
        with pytest.raises(PermissionError, match=f"is at the other end, not user {NOBODY}"):
            doors[0].connect(doors[1].address, 10)
        with socket.socket(socket.AF_UNIX) as knocking:
            knocking.connect(doors[1].address.path)
            assert knocking.recv(1) == b""
        monkeypatch.undo()
        for endpoint in doors:
            endpoint.close()
        assert not os.listdir(folder)
    assert len(arrived) == 1


def test_a_door_in_this_process_listens_nowhere():
    """No port, no file, no thread; a endpoint that is closed is gone."""
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    doors = [InProcessEndpoint() for _ in range(2)]
    arrived = []
    for endpoint in doors:
        endpoint.open(arrived.append)
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)
    with doors[0].connect(doors[1].address, 10) as mine, arrived[0] as theirs:
        mine.sendall(b"dlab")
        assert theirs.recv(4) == b"dlab"
    doors[1].close()
    for call in (doors[0].connect, doors[0].probe):
        with pytest.raises(ConnectionRefusedError, match="closed, or in another process"):
            call(doors[1].address, 10)
    doors[0].close()


def test_a_closed_door_leaves_no_thread_and_no_port():
    """However often one is opened."""
    with private_folder() as folder:
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for make in (lambda: TcpEndpoint("127.0.0.1", *CONTEXTS), lambda: UnixEndpoint(str(folder))):
            for _ in range(20):
                endpoint = make()
                endpoint.open(lambda connection: None)
                endpoint.close()
                with pytest.raises(OSError):
                    endpoint.probe(endpoint.address, 1)
        assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


# ------------------------------------------------------------------------------------------ the private folder


def folders(base):
    return sorted(Path(base).glob(f"{PREFIX}*"))


@pytest.fixture
def base(monkeypatch):
    """A short folder for temporary files that is the only one."""
    multiprocessing.util.get_temp_dir()  # its own stays: it is made once for all process groups
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_a_private_folder_is_its_users_and_goes(base):
    """Mode 0700 whatever the umask; it goes with all that is in it."""
    before = os.umask(0)
    try:
        with private_folder() as folder:
            found = folder.stat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), 0o700)
            assert folders(base) == [folder]
            assert holds_sockets(folder)
            UnixEndpoint(str(folder))._socket.close()
            (folder / SCRATCH).mkdir()
            assert len(os.listdir(folder)) == 2
    finally:
        os.umask(before)
    assert folders(base) == []


def test_a_forked_child_leaves_its_parents_folder(base):
    """When it ends, what its parent made is its parent's."""
    made = contextlib.ExitStack()
    folder = made.enter_context(private_folder())
    child = os.fork()
    if not child:
        made.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert folder.is_dir()
    made.close()
    assert folders(base) == []


def test_the_next_group_removes_what_a_killed_one_left(base):
    """That is what no process has locked; what is in use, open to others or of another kind stays."""
    with private_folder() as used:
        left, other, foreign = (Path(tempfile.mkdtemp(prefix=PREFIX)) for _ in range(3))
        UnixEndpoint(str(left))._socket.close()
        (left / SCRATCH / "worker").mkdir(parents=True)
        (other / "letter").write_text("mine")
        foreign.chmod(0o755)
        link = base / f"{PREFIX}link"
        link.symlink_to("/")
        with private_folder() as folder:
            assert set(folders(base)) == {used, folder, other, foreign, link}
        assert (other / "letter").read_text() == "mine"


def test_a_folder_that_is_taken_for_abandoned_is_made_again(base, monkeypatch):
    """Another group may look just between its making and its locking."""
    make, taken = tempfile.mkdtemp, []

    def make_and_lose(**options):
        path = make(**options)
        if not taken:
            taken.append(path)
            os.rmdir(path)
        return path

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with private_folder() as folder:
        assert folder.parent == base
    assert taken


def test_a_folder_is_where_sockets_have_room(base, monkeypatch):
    """A path that is too long for an address is passed by; a system that cannot tell users has no sockets."""
    deep = base / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))
    with private_folder() as folder:
        assert folder.parent == base
        monkeypatch.delattr(socket, "SO_PEERCRED")
        assert not holds_sockets(folder)
    assert not holds_sockets(deep)


def test_a_long_path_for_temporary_files_does_for_processes(base, monkeypatch):
    """Python's own server of processes has a Unix socket there, and would not start."""
    assert dask_patches.can_fork_from_server()
    monkeypatch.setattr(tempfile, "tempdir", str(base / ("d" * 80)))
    assert not dask_patches.can_fork_from_server()


def test_nowhere_to_make_a_folder_is_an_error(monkeypatch):
    """Which says what to set."""

    def refuse(**options):
        raise PermissionError(13, "Permission denied", options["dir"])

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(CardError, match=r"made and locked \(.*Permission denied.*set TMPDIR"):
        CardGroup(1)


@pytest.mark.parametrize("processes", [False, True])
def test_dask_imports_from_the_private_folder_only(base, processes):
    """By default it would from a folder that anybody may have made before; after the group, from none of its own."""
    before = list(sys.path)
    trap = base / SCRATCH
    trap.mkdir()
    with CardGroup(1, processes=processes) as cards:
        found = set(sys.path).union(*cards.client.run(lambda: __import__("sys").path).values()) - set(before)
        assert found
        assert all(path.startswith(f"{base}/{PREFIX}") for path in found)
        assert not any(path.is_file() and path.suffix == ".py" for path in base.rglob("*")), (
            "nothing to import"
        )
    assert sys.path == before
    assert folders(base) == []
    assert not os.listdir(trap)


# ---------------------------------------------------------------------------------------- the embedded cluster


@pytest.fixture(scope="module")
def group():
    with CardGroup(2, processes=True) as cards:
        yield cards


def tree():
    here = psutil.Process()
    return [here, *here.children(recursive=True)]


def ports_of(cards):
    """Where the scheduler, the nannies and the workers of a group listen."""
    dask = cards.client.cluster
    nannies = [nanny.address for nanny in dask.workers.values()]
    found = {
        int(a.rpartition(":")[2])
        for a in (dask.scheduler_address, *nannies, *cards.runtime.membership.addresses)
    }
    workers = set(cards.client.run(os.getpid).values())
    listening = {
        one.laddr.port
        for process in tree()
        if process.pid in workers
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    assert listening <= found, "a worker listens for Dask only"
    return found


def answer(port, context):
    """What a listener says to 4 KiB that mean nothing, over TLS or without; nothing if it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            if context is not None:
                connection = context.wrap_socket(connection)  # noqa: PLW2901
            connection.sendall(bytes(4096))
            return connection.recv(1)
    return b""


def test_every_port_of_a_group_wants_its_certificate(group):
    """Without it, or with that of another group, nothing is said but that it will not do."""
    other = temporary_security().get_connection_args("client")["ssl_context"]
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
    for port in ports_of(group):
        with contextlib.suppress(TimeoutError):
            assert answer(port, None) in {b"", b"\x15"}, "an alert of TLS at most"
        with pytest.raises(ssl.SSLCertVerificationError):
            answer(port, other)
        # A reset may overtake the alert that says why; then the answer is nothing.
        said = b""
        with contextlib.suppress(ssl.SSLError):
            said = answer(port, bare)
        assert said == b""


def test_a_client_without_the_groups_key_runs_nothing(group):
    """Not in plain, not with a key of its own."""
    address = group.client.scheduler.address
    assert address.startswith("tls://127.0.0.1:")
    with pytest.raises(TypeError, match="TLS expects a `ssl_context`"):
        dask_patches.ClosingClient(address, set_as_default=False, timeout=5)
    with pytest.raises(OSError, match="TLS certificate does not match"):
        dask_patches.ClosingClient(address, security=temporary_security(), set_as_default=False, timeout=5)
    with pytest.raises(OSError):
        dask_patches.ClosingClient(address.replace("tls", "tcp"), set_as_default=False, timeout=2)


def test_a_collected_client_waits_for_no_lock_of_dask(group):
    """The collector may run while another client starts, in the very thread that holds the lock of Dask's loops."""
    client = dask_patches.ClosingClient(
        group.client.scheduler.address, security=group.client.security, set_as_default=False, timeout=5
    )
    client.close()
    with LoopRunner._lock:
        collected = threading.Thread(target=type(client).__del__, args=(client,), daemon=True)
        collected.start()
        collected.join(5)
        assert not collected.is_alive()


@needs_root
def test_another_user_reaches_neither_cluster_nor_cards(group):
    """Loopback is open to all users of a machine; the certificate and the folder are not."""
    sockets = [peer.address.path for peer in group.runtime.gangs.epoch.peers]
    assert all(sockets)
    code = (
        "for path in sys.argv[1:]:\n"
        "    with socket.socket(socket.AF_UNIX) as knocking:\n"
        "        try:\n            knocking.connect(path); print('in')\n"
        "        except PermissionError:\n            print('out')"
    )
    assert as_nobody(code, *sockets) == "out\n" * len(sockets)


def test_no_key_is_shown(group):
    """Not by a command line, an environment, or the look of what holds it."""
    security = group.client.security
    secret = security.tls_worker_key.splitlines()[1]
    for process in tree():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            assert secret not in " ".join(process.cmdline())
            assert secret not in str(process.environ())
    dask = group.client.cluster
    seen = (security, group, group.client, dask, dask.worker_spec, dask.scheduler_spec, group.runtime.terms)
    shown = [repr(one) for one in seen] + [security._repr_html_(), group.client._repr_html_()]
    assert not any(secret in text or "PRIVATE KEY" in text for text in shown)
    epoch = group.runtime.gangs.epoch
    assert repr(epoch.nonce) not in repr(epoch)


def test_a_key_is_written_to_no_folder(monkeypatch):
    """Where the system has nameless memory: a process that is killed while it starts leaves none behind."""
    security = temporary_security()
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    again = pickle.loads(pickle.dumps(security))
    for one in (security, again):
        listening = one.get_listen_args("worker")
        assert listening["require_encryption"]
        assert listening["ssl_context"].verify_mode is ssl.CERT_REQUIRED
        assert one.get_listen_args("scheduler")["ssl_context"] is listening["ssl_context"], (
            "made once a process"
        )
    monkeypatch.undo()
    monkeypatch.delattr(os, "memfd_create")
    temporary_security().get_connection_args("client")


def test_where_sockets_cannot_be_private_cards_use_tls(monkeypatch):
    """As on a system that does not tell which user is at the other end."""
    monkeypatch.delattr(socket, "SO_PEERCRED")
    with CardGroup(2, processes=True) as cards:
        assert all(peer.address.port and not peer.address.path for peer in cards.runtime.gangs.epoch.peers)
        placement = cards.place([Numbers(r) for r in range(2)])
        found, _ = cards.run(add_all, placement, inputs(2), wanted(2))
        np.testing.assert_array_equal(found[0]["y"], [3, 3, 3])
        for peer in cards.runtime.gangs.epoch.peers:
            with pytest.raises(ssl.SSLCertVerificationError):
                answer(peer.address.port, temporary_security().get_connection_args("client")["ssl_context"])


def test_a_certificate_stands_up_to_a_strict_reader():
    """Python 3.13 reads certificates by the letter of RFC 5280 by default."""
    security = temporary_security()
    ends = [
        security.get_listen_args("scheduler")["ssl_context"],
        security.get_connection_args("client")["ssl_context"],
    ]
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    for end in ends:
        end.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ends[0].wrap_bio(there, back, server_side=True)
    client = ends[1].wrap_bio(back, there)
    for side in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert client.version() == server.version() == "TLSv1.3"
    assert client.getpeercert()["subject"] == server.getpeercert()["subject"]
