"""Reports of storage commitment that come to our listener on associations of their own (PS3.4 section J.3.3)."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from pydicom.filereader import read_dataset

from dicom_listener.data_set import encoding_of, inflated
from dicom_listener.dimse import Request

if TYPE_CHECKING:
    from dicom_listener.commitment import CommitmentReport, TakeReport

# A report on a hundred thousand objects is shorter.
MAX_REPORT_BYTES: Final = 16 * 1024**2


class Reports:
    """Takes reports, from those who may report.

    Args:
        reporters: AE titles.
        connect: makes what writes reports down; called when the first one comes, for most acceptors never see one.
    """

    def __init__(self, reporters: Iterable[str], connect: Callable[[], TakeReport]) -> None:
        self._reporters = frozenset(reporters)
        self._connect = connect
        self._lock = threading.Lock()
        self._take: TakeReport | None = None

    def may_come_from(self, calling: str) -> bool:
        """Whether this AE title may report."""
        return calling in self._reporters

    def take(self, request: Request, information: bytes, transfer_syntax_uid: str, calling: str) -> int:
        """The DIMSE status that answers an N-EVENT-REPORT (PS3.7 section 10.1.1.1.8). Does not raise."""
        # Not before: it imports the sender, and most acceptors never need it.
        from dicom_listener.commitment import INVALID_ARGUMENT, answer_report

        encoding = encoding_of(transfer_syntax_uid)
        try:
            plain = bytes(inflated(information, transfer_syntax_uid))
            ds = read_dataset(io.BytesIO(plain), encoding.implicit_vr, encoding.little_endian)
            ds.get("ReferencedSOPSequence")
        except Exception:  # boundary: pydicom raises whatever a broken data set brings about
            return INVALID_ARGUMENT
        return answer_report(request.event_type_id or 0, ds, calling, self._taker)

    def _taker(self, report: CommitmentReport, calling: str) -> int:
        with self._lock:
            if self._take is None:
                self._take = self._connect()
        return self._take(report, calling)
