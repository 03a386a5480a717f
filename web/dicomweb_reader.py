"""Reading stored objects for DICOMweb: headers and frames in child processes, so that no object can stop the server."""

from __future__ import annotations

import secrets
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import structlog

from dicom_listener.bounded import BoundedDecoder, Bounds
from fhir_records.errors import NotFound, PixelsNotReadable
from fhir_records.identities import log_id
from fhir_records.model import Instance
from web.dicomweb_cache import BytesCache

log = structlog.get_logger(__name__)

BATCH = 16  # headers that a child is asked for at once

Addressed = tuple[Path, Instance, str]  # file, row, address


class BoundedReader(BoundedDecoder):
    """A `BoundedDecoder` whose children parse headers too; any thread may ask."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        super().__init__(bounds, "web.dicomweb_child")
        self._pool = ThreadPoolExecutor(self.bounds.processes, "headers")
        self._cache = BytesCache()
        self._is_prepared = False
        # Stands for the object's address in what is kept: addresses are as the client came. Nobody can guess it.
        self._mark = secrets.token_hex(16)

    def prepare(self) -> None:
        """Have the children started, and do not wait: whoever searches is going to look."""
        if not self._is_prepared:
            self._is_prepared = True
            self._pool.submit(self.start)

    def attributes(self, objects: Sequence[Addressed], tags: Collection[int] | None = None) -> Iterator[str]:
        """The attributes of each object as JSON text, "" where they cannot be read, in order; see `attributes`."""
        wanted = None if tags is None else tuple(sorted(tags))
        batches = [objects[start : start + BATCH] for start in range(0, len(objects), BATCH)]
        if len(batches) == 1:
            yield from self._texts(batches[0], wanted)
            return
        waiting: deque[Future[list[str]]] = deque()
        for batch in batches:
            waiting.append(self._pool.submit(self._texts, batch, wanted))
            if len(waiting) > 2 * self.bounds.processes:  # no more in memory than the client takes
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

    def _texts(self, objects: Sequence[Addressed], tags: tuple[int, ...] | None) -> list[str]:
        packed = [self._cache.get((path, tags)) for path, _, _ in objects]
        missing = [number for number, one in enumerate(packed) if one is None]
        for number, found in zip(missing, self._packed([objects[number] for number in missing], tags), strict=True):
            packed[number] = found
            if found:
                self._cache.put((objects[number][0], tags), found)
        return [
            zlib.decompress(one).decode().replace(self._mark, address) if one else ""
            for one, (_, _, address) in zip(packed, objects, strict=True)
        ]

    def _packed(self, objects: Sequence[Addressed], tags: tuple[int, ...] | None) -> list[bytes]:
        """The attributes of each, compressed, with a mark where its address goes; b"" where they cannot be read."""
        if not objects:
            return []
        asked = [(str(path), one.transfer_syntax_uid, one.rows) for path, one, _ in objects]
        try:
            told, raw = self.ask({"what": "attributes", "objects": asked, "tags": tags, "address": self._mark})
        except PixelsNotReadable as error:
            if len(objects) > 1:  # one of them is at fault; the others are not lost for its sake
                return [found for one in objects for found in self._packed([one], tags)]
            log.warning("attributes cannot be read", instance_id=log_id(objects[0][1].sop_uid), reason=str(error))
            return [b""]
        found, start = [], 0
        for length in told["lengths"]:
            found.append(bytes(raw[start : start + length]))
            start += length
        return found
