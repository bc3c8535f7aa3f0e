"""Who a client is, and which servers it believes, on mTLS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files, which are read again while they change, and the servers to believe.

    The certificate has one SPIFFE id (a URI among its subject alternative names): it is the tenant
    whose blocks this client reads and writes. `server_ids` are the SPIFFE ids that shards and
    routers have; without them their certificates have to name the host that is dialled.
    """

    ca: str
    certificate: str
    key: str
    server_ids: Sequence[str] = ()

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> Tls | None:
        """From `tls_ca`, `tls_cert`, `tls_key` and `tls_server_id`; None: none of them is set.

        Raises ValueError when some of the three files are missing.
        """
        names = ("tls_ca", "tls_cert", "tls_key")
        ca, certificate, key = files = [str(settings.get(name) or "") for name in names]
        ids = settings.get("tls_server_id") or ()
        ids = (ids,) if isinstance(ids, str) else tuple(ids)
        if not any(files) and not ids:
            return None
        missing = [name for name, file in zip(names, files) if not file]
        if missing:
            raise ValueError(f"TLS needs {', '.join(names)}: {', '.join(missing)} is missing")
        return Tls(ca, certificate, key, ids)

    def options(self) -> dict[str, Any]:
        """As the library's options say it."""
        return {
            "tls_ca": self.ca,
            "tls_cert": self.certificate,
            "tls_key": self.key,
            "tls_server_id": list(self.server_ids),
        }
