"""Authorities and certificates for tests, as files in a directory of the test's own."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

PAST = timedelta(hours=-1)


class Authority:
    """A certificate authority, and the files of what it issues."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._ca = trustme.CA(organization_name=name)
        self.file = str(directory / f"{name}.pem")
        self._ca.cert_pem.write_to_path(self.file)

    def issue(
        self, *names: str, file: str = "server", common_name: str = "", left: timedelta | None = None
    ) -> "Certificate":
        """Returns a certificate for these names (`localhost` if there are none) and its key.

        `left`: the time until it ends. Files of the same name are written over.
        """
        issued = self._ca.issue_cert(
            *(names or ("localhost", "127.0.0.1")),
            common_name=common_name or None,
            not_before=datetime.now(UTC) - timedelta(days=400) if left is not None else None,
            not_after=None if left is None else datetime.now(UTC) + left,
        )
        found = Certificate(self._directory, file, self.file)
        found.write(issued)
        return found

    def client_context(self, certificate: "Certificate | None" = None) -> ssl.SSLContext:
        """Returns a context that believes this authority, and shows the certificate."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate is not None:
            context.load_cert_chain(certificate.cert, certificate.key)
        return context


class Certificate:
    """The two files of a certificate, and the file of its authority."""

    def __init__(self, directory: Path, file: str, ca: str) -> None:
        self.cert = str(directory / f"{file}.pem")
        self.key = str(directory / f"{file}.key")
        self.ca = ca

    def write(self, issued: trustme.LeafCert) -> None:
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        Path(self.key).write_bytes(issued.private_key_pem.bytes())
        Path(self.cert).write_bytes(chain)

    def server_context(self) -> ssl.SSLContext:
        """Returns a context for a server of the test's own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context
