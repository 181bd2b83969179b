"""An encrypted connection is to the server that it should be to."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from recmoe.client import RankClient
from recmoe.errors import CallError


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that it signed itself, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(address, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def encrypted(certificate: Path, answer: bytes) -> Iterator[str]:
    """A server that answers every request of its connections alike."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(connection: socket.socket) -> None:
        try:
            with context.wrap_socket(connection, server_side=True) as opened:
                while opened.recv(65536):
                    opened.sendall(answer)
        except OSError:
            return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_known_certificate_is_accepted_and_the_connection_kept(certificate: Path, faults: Any) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        encrypted(certificate, faults.answer(200, {"status": "ok"})) as url,
        RankClient(url, tls=context) as client,
    ):
        healths = [client.health(), client.health()]
        num_kept = len(client._pool._idle)

    assert all(healths), healths
    assert num_kept == 1


def test_unknown_certificate_is_refused_in_words_and_not_tried_again(certificate: Path, faults: Any) -> None:
    with (
        encrypted(certificate, faults.answer(200, faults.ranking)) as url,
        RankClient(url) as client,
        pytest.raises(CallError, match="its certificate is not accepted: self-signed certificate"),
    ):
        client.rank(candidates=[{"item_id": 1}])


def test_server_without_tls_is_an_error_in_words(faults: Any) -> None:
    def serve_plain() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(faults.answer(400, {"detail": "not HTTP"}))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_plain, daemon=True)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with (
            RankClient(url, retries=0) as client,
            pytest.raises(CallError, match=r"does not answer: .*(?i:wrong version)"),
        ):
            client.rank(candidates=[{"item_id": 1}])
        thread.join()
