"""Figures for Prometheus, asked of the record: they are right whichever process is asked, and after any restart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.orm import Session

# Name, help, labels, and the query that gives the labels and the value, in this order. No label can name a patient.
_FIGURES: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    (
        "wetread_instances",
        "Stored SOP instances.",
        ("kind", "standing"),
        "SELECT kind, standing, count(*) FROM instance GROUP BY 1, 2",
    ),
    ("wetread_studies", "Studies.", (), "SELECT count(*) FROM study"),
    (
        "wetread_studies_arriving",
        "Studies with images that no revision holds yet.",
        (),
        "SELECT count(*) FROM study WHERE open_since IS NOT NULL",
    ),
    (
        "wetread_studies_held",
        "Studies whose patient waits for a person's decision.",
        (),
        "SELECT count(*) FROM study WHERE hold_reason IS NOT NULL",
    ),
    (
        "wetread_quarantined_objects",
        "Objects that could not be stored as DICOM.",
        (),
        "SELECT count(*) FROM quarantined_object",
    ),
    (
        "wetread_associations_open",
        "DICOM associations open now.",
        (),
        "SELECT count(*) FROM association_lease WHERE expires_at > now()",
    ),
    (
        "wetread_reads",
        "Reads by model and state.",
        ("model", "state"),
        "SELECT model, state, count(*) FROM read GROUP BY 1, 2",
    ),
    (
        "wetread_read_seconds_mean_1h",
        "Mean seconds from queueing to answer over the last hour.",
        ("model",),
        "SELECT model, avg(extract(epoch FROM finished_at - queued_at)) FROM read"
        " WHERE finished_at > now() - interval '1 hour' GROUP BY 1",
    ),
    (
        "wetread_deliveries",
        "Deliveries by destination and state.",
        ("destination", "state"),
        "SELECT destination, state, count(*) FROM delivery GROUP BY 1, 2",
    ),
    (
        "wetread_delivery_oldest_waiting_seconds",
        "Age of the oldest delivery that still waits.",
        ("destination",),
        "SELECT destination, max(extract(epoch FROM now() - created_at)) FROM delivery"
        " WHERE state = 'waiting' GROUP BY 1",
    ),
    (
        "wetread_jobs",
        "Jobs by queue and status.",
        ("queue", "status"),
        "SELECT queue_name, status::text, count(*) FROM procrastinate_jobs GROUP BY 1, 2",
    ),
    (
        "wetread_workers_alive",
        "Workers whose heart beat within the last 20 seconds, by queue loop.",
        (),
        "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - interval '20 seconds'",
    ),
    (
        "wetread_orthanc_followed_seconds_ago",
        "Seconds since the changes of an Orthanc were last followed.",
        ("name",),
        "SELECT name, extract(epoch FROM now() - updated_at) FROM orthanc_cursor",
    ),
)


class _RecordCollector(Collector):
    def __init__(self, session: Session) -> None:
        self._session = session

    def collect(self) -> Iterable[Metric]:
        return list(self._families())

    def _families(self) -> Iterator[Metric]:
        for name, words, labels, query in _FIGURES:
            family = GaugeMetricFamily(name, words, labels=labels)
            for row in self._session.execute(text(query)):
                family.add_metric([str(value) for value in row[:-1]], float(row[-1]))
            yield family


def exposition(session: Session) -> bytes:
    """The record's figures in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_RecordCollector(session))
    return generate_latest(registry)
