"""Deliveries under every fault that a PACS has, as in the long run by command, but fewer."""

from __future__ import annotations

from collections import Counter

import pytest

from fhir_records.database import Database
from tests.delivery_storm import storm as blown


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_claimed_that_the_destination_did_not_say(database: Database, seed: int) -> None:
    """Every delivery comes to an end that its destination's journal bears out, and the bytes are the first ones."""
    account = blown.storm(database, 24, seed)
    assert account.untrue == []
    assert account.deliveries >= 48 and account.attempts > account.deliveries
    assert account.happened["database cut"] and account.happened["paused"] and account.happened.total() > 12
    assert sum(count for fault, count in account.faults.items() if fault not in ("kept", "same")) > 20
    assert set(account.states) <= {"confirmed", "delivered", "refused", "withdrawn", "filtered"}


def test_the_judge_notices_what_is_untrue(database: Database) -> None:
    """Take away what the PACS said, or what it holds: every claim that rests on it is found."""
    with blown._storm(database, 8, 3) as storm:
        storm.people.unsigned.clear()
        storm.blow(lambda line: None, faults=0)
        storm.judge()
        assert storm.account.untrue == []
        claimed = storm.account.states["delivered"] + storm.account.states["confirmed"]
        assert claimed
        for peer in storm.peers.values():
            peer.accepted, peer.received = Counter(), peer.received.__class__(lambda: ["another"])
        storm.judge()
    assert sum("never said that it took it" in words for words in storm.account.untrue) == claimed
    assert sum("other bytes" in words for words in storm.account.untrue) == 16
