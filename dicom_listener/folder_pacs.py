"""A small storage SCP that keeps what it is sent in a folder: the demo's stand-in for a PACS."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import from a table

from fhir_records.identities import log_id


class FolderPacs:
    """Accepts every storage SOP class from this machine and writes each object as a PS3.10 file.

    Args:
        folder: made where it is absent.
        ae_title: its AE title.
        port: where it listens, on the loopback address only.
    """

    def __init__(self, folder: Path, *, ae_title: str = "FOLDERPACS", port: int) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.port = port
        self._ae = AE(ae_title=ae_title)
        self._ae.supported_contexts = AllStoragePresentationContexts
        self._ae.add_supported_context(Verification)

    def start(self) -> None:
        """Listen, in threads of this process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_C_ECHO, lambda _event: 0x0000)]
        self._ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Listen no longer."""
        self._ae.shutdown()

    def path_of(self, sop_uid: str) -> Path:
        """Where an object is, once it has come. The name is a hash: a UID from outside never becomes a path."""
        return self.folder / f"{log_id(sop_uid)}.dcm"

    def _store(self, event: Event) -> int:
        request = cast(C_STORE, event.request)
        part = self.path_of(str(request.AffectedSOPInstanceUID)).with_suffix(".part")
        part.write_bytes(event.encoded_dataset())
        part.rename(part.with_suffix(".dcm"))
        return 0x0000
