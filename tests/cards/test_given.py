"""Clusters that somebody else started: by address, client or file, over TLS, shared, and not always fit."""

import datetime
import gc
import ipaddress
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from distributed import Client, Security

from distinfer_lab.cards import CardGroup, cluster
from distinfer_lab.cli import main
from distinfer_lab.errors import ArgumentTypeError, CardError, ContextError

from ..oracle import case
from .clusters import ROOT, cluster_of
from .test_group import Numbers, add_all, inputs, wanted

# Each of these starts an interpreter for a scheduler and for each worker.
pytestmark = pytest.mark.timeout(400)


def predict(cards, number=1.0):
    """The sum of two cards' w + x, once, with shards of its own."""
    placement = cards.place([Numbers(r) for r in range(2)])
    given = [{"x": np.full(3, number, np.float32)} for _ in range(2)]
    found, _ = cards.run(add_all, placement, given, wanted(2))
    cards.drop(placement)
    return found[0]["y"].tolist()


def distinfer(*words):
    return CliRunner().invoke(main, words)


def write(path, *blocks):
    path.write_bytes(b"".join(blocks))
    return str(path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority's certificate, and one that it signed for this machine: (ca, certificate, key) files."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, n)]) for n in ("authority", "cards")]

    def certificate(number, is_authority):
        where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        made = x509.CertificateBuilder(
            names[0],
            names[number],
            keys[number].public_key(),
            x509.random_serial_number(),
            now - datetime.timedelta(days=1),
            now + datetime.timedelta(days=1),
        )
        made = made.add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        if not is_authority:
            made = made.add_extension(where, critical=False)
        signed = made.sign(keys[0], hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return (
        write(folder / "ca.pem", certificate(0, True)),
        write(folder / "cert.pem", certificate(1, False)),
        write(folder / "key.pem", key),
    )


def test_a_cluster_over_tls(certificates):
    """Its certificates are given by `security`; without them the error says so. Channels are TLS too."""
    ca, cert, key = certificates
    options = ["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key]
    security = Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)
    with cluster_of(2, *options, scheme="tls", scheduler_options=options, security=security) as given:
        with CardGroup(2, address=given.address, security=security) as cards:
            assert predict(cards) == [3, 3, 3]
        with pytest.raises(CardError, match=r"answers at tls://.* give security= with the cluster's cert"):
            CardGroup(2, address=given.address)
        # One left to the garbage collector would close itself at any time, and may then wait for itself.
        clients = [found for found in gc.get_objects() if isinstance(found, Client)]
        assert {client.status for client in clients} <= {"closed", "newly-created"}
    with pytest.raises(ArgumentTypeError, match="should be a Security or None"):
        CardGroup(2, address="tls://a:1", security=ca)
    with pytest.raises(ContextError, match="security needs address or scheduler_file"):
        CardGroup(2, security=security)


def test_the_command_over_tls(certificates, tmp_path):
    """Given the cluster's certificates it writes what it writes without a cluster; without them it says so."""
    ca, cert, key = certificates
    options = ["--tls-ca-file", ca, "--tls-cert", cert, "--tls-key", key]
    security = Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, require_encryption=True)
    found = case("mlp_adam_8_to_4")
    words = ["reshard", str(found.folder / "src"), "--strategy", str(found.src_strategy)]
    words += ["--to", str(found.dst_strategy)]
    with cluster_of(2, *options, scheme="tls", scheduler_options=options, security=security) as given:
        by_file = ["--scheduler-file", str(given.scheduler_file)]
        for name, more in {"one": [], "two": [*by_file, *options]}.items():
            assert distinfer(*words, str(tmp_path / name), *more).exit_code == 0
        refused = distinfer(*words, str(tmp_path / "three"), *by_file)
    assert refused.exit_code == 1
    assert "--tls-ca-file" in refused.output
    for rank in range(2):
        one, two = (tmp_path / name / f"rank_{rank}" / f"checkpoint_{rank}.ckpt" for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_a_cluster_by_its_file_or_a_client(tmp_path):
    """As Dask's command writes it; one that is missing is named. A client that was given stays open."""
    path = tmp_path / "scheduler.json"
    with pytest.raises(CardError, match=r"there is no scheduler file .*scheduler.json; `dask scheduler"):
        CardGroup(2, scheduler_file=path)
    with cluster_of(2) as given:
        path = given.scheduler_file
        with CardGroup(2, scheduler_file=path) as cards:
            assert predict(cards) == [3, 3, 3]
        with Client(given.address, set_as_default=False) as client:
            with CardGroup(client=client) as cards:
                assert (len(cards), predict(cards)) == (2, [3, 3, 3])
            assert client.status == "running"
    with pytest.raises(ContextError, match="address and scheduler_file both name a cluster"):
        CardGroup(2, address=given.address, scheduler_file=path)


VERSION = "import distinfer_lab.version as v; v.__version__ = '9.9'"
NUMPY = "import numpy as np; np.__version__ = '1.99.0'"
MISSING = "import sys; sys.modules['distinfer_lab'] = None"


@pytest.mark.parametrize(
    ("preload", "text"),
    [
        (VERSION, r"worker tcp://.* has distinfer_lab 9.9 \(here .*\); install the same on every worker"),
        (NUMPY, r"worker tcp://.* has numpy 1.99.0 \(here .*\); install the same on every worker"),
        (MISSING, r"worker tcp://.* cannot import distinfer_lab.*; install it on every worker"),
    ],
    ids=["another version", "another numpy", "no package"],
)
def test_a_worker_that_is_not_fit_is_named(preload, text):
    """With what it has, and what is here."""
    with cluster_of(0) as given:
        given.add("--preload", preload)
        given.wait()
        with pytest.raises(CardError, match=text):
            CardGroup(1, address=given.address)


def test_a_scheduler_without_the_package_is_told():
    """It reads the tasks that it hands on."""
    with cluster_of(1, scheduler_options=["--preload", MISSING]) as given:
        with pytest.raises(CardError, match=r"the scheduler cannot import distinfer_lab.*; install it"):
            CardGroup(1, address=given.address)


def test_another_python_is_named(monkeypatch):
    """Arrays and programs are sent as Python writes them."""
    here = cluster.versions()

    class Other:
        def run_on_scheduler(self, function):
            return here

    answers = {"tcp://a:1": {**here, "Python": "3.0"}}
    monkeypatch.setattr(cluster, "_versions_of", lambda client, addresses: answers)
    with pytest.raises(CardError, match=r"worker tcp://a:1 has Python 3.0 \(here 3\.\d+\)"):
        cluster.check_versions(Other(), ["tcp://a:1"])


def test_workers_of_many_threads_are_cards_too():
    """One task each; sums and limits of threads are those of one card a worker."""
    with cluster_of(0) as given:
        for _ in range(2):
            given.add(nthreads=4)
        given.wait()
        with CardGroup(2, address=given.address) as cards:
            assert [predict(cards, n) for n in range(3)] == [[1, 1, 1], [3, 3, 3], [5, 5, 5]]


NOTEBOOK = """
import sys
from distinfer_lab.cards import CardGroup
from tests.cards.test_given import predict

if __name__ == "__main__":
    with CardGroup(2, address=sys.argv[1]) as cards:
        print("ready", flush=True)
        sys.stdin.readline()
        print([predict(cards, n) for n in range(10)])
"""


def test_two_notebooks_share_a_cluster(tmp_path):
    """Their steps wait for each other and never mix: leases."""
    script = tmp_path / "notebook.py"
    script.write_text(NOTEBOOK)
    with cluster_of(2) as given:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        books = [
            subprocess.Popen([sys.executable, str(script), given.address], text=True, cwd=ROOT, **pipes)
            for _ in range(2)
        ]
        for book in books:
            assert book.stdout.readline() == "ready\n"
        for book in books:
            book.stdin.write("\n")
            book.stdin.flush()
        for book in books:
            out, err = book.communicate(timeout=150)
            assert err == ""
            assert out == f"{[[1.0 + 2 * n] * 3 for n in range(10)]}\n"


def test_a_slow_card_does_not_break_order():
    """One card is stopped for a while in the middle of its steps: the answers are those of its steps."""
    with CardGroup(2, processes=True) as cards:
        placement = cards.place([Numbers(r) for r in range(2)])
        for n in range(4):
            given = [{"x": np.full(3, n, np.float32)} for _ in range(2)]
            found, _ = cards.run(late_on_one, placement, given, wanted(2))
            assert found[0]["y"].tolist() == [1 + 2 * n] * 3
        assert inputs(1)


def late_on_one(rank, values, inputs, card):
    """A program whose card 1 stops itself until a child of it sends it on."""
    import os
    import signal

    if rank == 1:
        me = os.getpid()
        subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -CONT {me}"])
        os.kill(me, signal.SIGSTOP)
    return add_all(rank, values, inputs, card)
