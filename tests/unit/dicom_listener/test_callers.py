"""Who may open an association."""

from __future__ import annotations

import pytest

from dicom_listener.callers import may_call
from dicom_listener.settings import Caller

CT1 = Caller("CT1", "10.0.0.5")
NET = Caller("MR1", "192.168.7.0/24")
NAMED = Caller("PACS", "localhost")
SIX = Caller("CT6", "fd00::/8")


@pytest.mark.parametrize(
    ("callers", "ae_title", "address", "allowed"),
    [
        ((), "ANY", "127.0.0.1", True),
        ((), "ANY", "::1", True),
        ((), "ANY", "::ffff:127.0.0.1", True),
        ((), "ANY", "10.0.0.5", False),
        ((CT1,), "CT1", "10.0.0.5", True),
        ((CT1,), "CT1", "::ffff:10.0.0.5", True),
        ((CT1,), "CT2", "10.0.0.5", False),
        ((CT1,), "CT1", "10.0.0.6", False),
        ((CT1,), "CT1", "127.0.0.1", False),
        ((CT1, NET), "MR1", "192.168.7.200", True),
        ((CT1, NET), "MR1", "192.168.8.1", False),
        ((NAMED,), "PACS", "127.0.0.1", True),
        ((SIX,), "CT6", "fd12::9%eth0", True),
        ((CT1,), "CT1", "nonsense", False),
        ((Caller("X", "no.such.host.invalid"),), "X", "10.0.0.5", False),
    ],
)
def test_caller_is_known_by_title_and_host(
    callers: tuple[Caller, ...], ae_title: str, address: str, allowed: bool
) -> None:
    """Title and host must both fit one entry; with no entries, only this machine may."""
    assert may_call(callers, ae_title, address) is allowed
