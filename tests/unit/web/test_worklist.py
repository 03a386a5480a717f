"""What a line of the worklist says."""

from __future__ import annotations

from fhir_records.model import Delivery, DeliveryState
from web.worklist import delivery_words, etag


def delivery(destination: str, state: DeliveryState) -> Delivery:
    return Delivery(1, 1, destination, state, 1, None, None, None)


def test_the_worst_state_stands_for_all_deliveries() -> None:
    """One refusal is said, though others arrived; only when all arrived does it say so."""
    arrived = delivery("pacs", DeliveryState.DELIVERED)
    refused = delivery("vna", DeliveryState.REFUSED)
    assert delivery_words([arrived, refused]) == ("refused by vna", "refused")
    assert delivery_words([arrived, delivery("archive", DeliveryState.DELIVERED)]) == (
        "delivered to archive, pacs",
        "delivered",
    )
    assert delivery_words([]) == ("", "")


def test_an_entity_tag_changes_with_what_is_shown_and_with_the_version() -> None:
    """A new version of the program may show the same rows otherwise."""
    assert etag(("a",), "1") == etag(("a",), "1")
    assert len({etag(("a",), "1"), etag(("b",), "1"), etag(("a",), "2")}) == 3
