"""Reading stored objects for DICOMweb: headers and frames in child processes, so that no object can stop the server."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import structlog

from dicom_listener.bounded import BoundedDecoder, Bounds
from fhir_records.errors import NotFound, PixelsNotReadable
from fhir_records.identities import log_id
from fhir_records.model import Instance

log = structlog.get_logger(__name__)

BATCH = 8  # headers that a child is asked for at once

Addressed = tuple[Path, Instance, str]  # file, row, address


class BoundedReader(BoundedDecoder):
    """A `BoundedDecoder` whose children parse headers too; any thread may ask."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        super().__init__(bounds, "web.dicomweb_child")
        self._pool = ThreadPoolExecutor(self.bounds.processes, "headers")

    def attributes(self, objects: Sequence[Addressed], tags: Collection[int] | None = None) -> Iterator[str]:
        """The attributes of each object as JSON text, "" where they cannot be read, in order; see `attributes`."""
        batches = [objects[start : start + BATCH] for start in range(0, len(objects), BATCH)]
        if len(batches) == 1:
            yield from self._texts(batches[0], tags)
            return
        waiting: deque[Future[list[str]]] = deque()
        for batch in batches:
            waiting.append(self._pool.submit(self._texts, batch, tags))
            if len(waiting) > self.bounds.processes:  # no more in memory than the client takes
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()

    def bulk_value(self, path: Path, place: str) -> bytes:
        """As `dicomweb_attributes.bulk_value`.

        Raises:
            NotFound: there is no such binary value.
            PixelsNotReadable: the file cannot be parsed, or not within the limits.
        """
        told, raw = self.ask({"what": "bulk", "path": str(path), "place": place})
        if "absent" in told:
            raise NotFound(str(told["absent"]))
        return bytes(raw)

    def explicit_head(self, path: Path, instance: Instance) -> bytes:
        """As `dicomweb_attributes.explicit_head`.

        Raises:
            PixelsNotReadable: the file cannot be parsed, or not within the limits.
        """
        asked = {"what": "head", "path": str(path), "syntax": instance.transfer_syntax_uid, "rows": instance.rows}
        return bytes(self.ask(asked)[1])

    def _texts(self, objects: Sequence[Addressed], tags: Collection[int] | None) -> list[str]:
        asked = [(str(path), one.transfer_syntax_uid, one.rows, address) for path, one, address in objects]
        wanted = None if tags is None else sorted(tags)
        try:
            _, raw = self.ask({"what": "attributes", "objects": asked, "tags": wanted})
            texts = raw.decode().split("\n")
        except PixelsNotReadable as error:
            if len(objects) > 1:  # one of them is at fault; the others are not lost for its sake
                return [text for one in objects for text in self._texts([one], tags)]
            log.warning("attributes cannot be read", instance_id=log_id(objects[0][1].sop_uid), reason=str(error))
            texts = [""]
        return texts
