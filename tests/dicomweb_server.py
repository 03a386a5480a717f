"""A running web part with DICOMweb on a record, and tokens to use it: what programs meet."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import httpx
import uvicorn
from dicomweb_client.api import DICOMwebClient

from fhir_records.database import Database
from fhir_records.store import tokens
from tests.peers import free_port
from web.app import create_app
from web.settings import WebSettings


@dataclass(frozen=True, slots=True)
class Served:
    """A running server."""

    url: str
    database: Database
    settings: WebSettings

    @property
    def base(self) -> str:
        """Where DICOMweb is."""
        return f"{self.url}/dicom-web"

    def token(self, scope: str = "system/*.crs") -> str:
        """A new token."""
        with self.database.session() as session:
            return tokens.create(session, f"test {uuid.uuid4().hex[:8]}", scope)

    def http(self, scope: str = "system/*.crs") -> httpx.Client:
        """A client that sends a token of this scope."""
        headers = {"Authorization": f"Bearer {self.token(scope)}"}
        return httpx.Client(base_url=self.base, headers=headers, timeout=60)

    def dicomweb(self) -> DICOMwebClient:
        """The client as it is published, with a token."""
        return DICOMwebClient(self.base, headers={"Authorization": f"Bearer {self.token()}"})


@contextmanager
def serving(database: Database, spool: Path, **changed: object) -> Iterator[Served]:
    """Serve the application, in a thread, until the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = WebSettings(
        public_url=url,
        spool_root=spool,
        statement="Not a certified medical device.",
        timezone=ZoneInfo("UTC"),
        version="0.0-test",
        min_free_bytes=0,
    )
    settings = replace(settings, **changed)  # type: ignore[arg-type]
    app = create_app(settings, database)
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Served(url, database, settings)
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def multipart(
    parts: list[bytes], kind: str = "application/dicom", boundary: str = "a1b2"
) -> tuple[dict[str, str], bytes]:
    """Headers and body of a store request."""
    body = b"".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n" for part in parts)
    headers = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}'}
    return headers, body + f"--{boundary}--\r\n".encode()
