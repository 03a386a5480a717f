"""Figures for Prometheus, asked of the record: they are right whichever process is asked, and after any restart."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.orm import Session

from fhir_records.agreement import Outcome, Tally
from fhir_records.store.agreement import recent
from fhir_records.store.models import ModelWeek, weekly

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
        "wetread_associations_1h",
        "DICOM associations within the last hour by what became of them.",
        ("outcome",),
        "SELECT outcomes.outcome, count(audit_event.id) FROM (VALUES ('accepted'), ('rejected'), ('released'),"
        " ('aborted'), ('lost')) AS outcomes(outcome) LEFT JOIN audit_event"
        " ON audit_event.action = 'association ' || outcomes.outcome AND audit_event.at > now() - interval '1 hour'"
        " GROUP BY 1",
    ),
    (
        "wetread_received_objects_1h",
        "Objects received within the last hour and in the index, by sender.",
        ("source",),
        "SELECT source, count(*) FROM instance WHERE received_at > now() - interval '1 hour' GROUP BY 1",
    ),
    (
        "wetread_received_bytes_1h",
        "Their bytes.",
        ("source",),
        "SELECT source, sum(size) FROM instance WHERE received_at > now() - interval '1 hour' GROUP BY 1",
    ),
    (
        "wetread_instances_missing",
        "Instances whose file is not in the spool.",
        (),
        "SELECT count(*) FROM instance WHERE missing_since IS NOT NULL",
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
        "wetread_shadow_reads",
        "Studies read by a version on trial, and whether it agreed with the active one.",
        ("model", "version", "outcome"),
        "SELECT model, version, CASE WHEN agrees THEN 'agrees' WHEN NOT agrees THEN 'disagrees' ELSE 'failed' END,"
        " count(*) FROM shadow_read GROUP BY 1, 2, 3",
    ),
    (
        "wetread_deliveries",
        "Deliveries by destination and state.",
        ("destination", "state"),
        "SELECT destination, state, count(*) FROM delivery GROUP BY 1, 2",
    ),
    (
        "wetread_objects_held",
        "Objects that the conformance gate holds, by kind.",
        ("kind",),
        "SELECT kind, count(*) FROM document WHERE cardinality(faults) > 0 AND released_at IS NULL GROUP BY 1",
    ),
    (
        "wetread_delivery_oldest_waiting_seconds",
        "Age of the oldest delivery that still waits.",
        ("destination",),
        "SELECT destination, max(extract(epoch FROM now() - created_at)) FROM delivery"
        " WHERE state = 'waiting' GROUP BY 1",
    ),
    (
        "wetread_forwards",
        "Studies whose images are sent on, by destination and state.",
        ("destination", "state"),
        "SELECT destination, state, count(*) FROM forward GROUP BY 1, 2",
    ),
    (
        "wetread_forward_oldest_waiting_seconds",
        "Age of the oldest study whose images still wait to be sent on.",
        ("destination",),
        "SELECT destination, max(extract(epoch FROM now() - created_at)) FROM forward"
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

# When files of TLS end, which the record does not know: name, help, labels.
CERTIFICATES = (
    "wetread_certificate_expires_timestamp",
    "When the first certificate, authority or list of revoked certificates of a file ends, in seconds since 1970.",
    ("use", "part"),
)


@dataclass(frozen=True, slots=True)
class CertificateEnd:
    """When a file of TLS ends."""

    use: str  # "listener", or the destination
    part: str  # "certificate", "authorities" or "revoked"
    at: dt.datetime


# Of each model version in the week that runs (from Monday, UTC): name, help, a label beside model and version or "",
# and the values by that label.
_WeekValues = Callable[[ModelWeek], Iterable[tuple[str, float | None]]]
_MODEL_FIGURES: tuple[tuple[str, str, str, _WeekValues], ...] = (
    ("wetread_model_week_reads", "Reads this week.", "", lambda week: [("", week.reads)]),
    (
        "wetread_model_week_answers",
        "Reads this week by the model's answer.",
        "label",
        lambda week: week.answers.items(),
    ),
    (
        "wetread_model_week_refusals",
        "Reads refused this week by reason.",
        "reason",
        lambda week: week.refusals.items(),
    ),
    (
        "wetread_model_week_refusal_rate",
        "Share of this week's reads that were refused.",
        "",
        lambda week: [("", week.refusal_rate)],
    ),
    (
        "wetread_model_week_read_seconds_mean",
        "Mean seconds that the model took for a study this week.",
        "",
        lambda week: [("", week.seconds_mean)],
    ),
    (
        "wetread_model_week_probability",
        "Reads this week by the probability of their answer: the lower edge of a tenth.",
        "from",
        lambda week: [(f"{place / 10:.1f}", count) for place, count in enumerate(week.probabilities)],
    ),
    (
        "wetread_model_week_psi",
        "Population stability index of this week's inputs against training; above 0.25 much has changed.",
        "of",
        lambda week: [("intensity", week.intensity_psi), ("distance", week.distance_psi)],
    ),
)
# Of the answers of the last 28 days: name, help, labels. Answers are a model's own, so their number is bounded.
_AGREEMENT_FIGURES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "wetread_results_28d",
        "Results of the last 28 days by the model's answer and what people made of it.",
        ("model", "version", "answer", "outcome"),
    ),
    (
        "wetread_agreement_28d",
        "Share of them whose answer the person who signed let stand, and its interval of 95 %.",
        ("model", "version", "bound"),
    ),
)
_THIS_WEEK = "SELECT date_trunc('week', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'"


class _RecordCollector(Collector):
    def __init__(self, session: Session, certificates: Iterable[CertificateEnd]) -> None:
        self._session = session
        self._certificates = certificates

    def collect(self) -> Iterable[Metric]:
        return list(self._families())

    def _families(self) -> Iterator[Metric]:
        for name, words, labels, query in _FIGURES:
            family = GaugeMetricFamily(name, words, labels=labels)
            for row in self._session.execute(text(query)):
                family.add_metric([str(value) for value in row[:-1]], float(row[-1]))
            yield family
        name, words, labels = CERTIFICATES
        family = GaugeMetricFamily(name, words, labels=labels)
        for end in self._certificates:
            family.add_metric([end.use, end.part], end.at.timestamp())
        yield family
        weeks = weekly(self._session, since=self._session.scalar(text(_THIS_WEEK)))
        for name, words, label, values in _MODEL_FIGURES:
            family = GaugeMetricFamily(name, words, labels=["model", "version", *([label] if label else [])])
            for week in weeks:
                for word, value in values(week):
                    if value is not None:
                        family.add_metric([week.model, week.version, *([word] if label else [])], float(value))
            yield family
        yield from _agreement(self._session)


def _agreement(session: Session) -> Iterator[Metric]:
    """Both figures of `_AGREEMENT_FIGURES`; no share of fewer than five."""
    counts, shares = (GaugeMetricFamily(name, words, labels=labels) for name, words, labels in _AGREEMENT_FIGURES)
    versions: dict[tuple[str, str], dict[Outcome, int]] = {}
    for model, version, label, outcome, count in recent(session):
        counts.add_metric([model, version, label, outcome.value], count)
        outcomes = versions.setdefault((model, version), {})
        outcomes[outcome] = outcomes.get(outcome, 0) + count
    for (model, version), outcomes in versions.items():
        interval = Tally(outcomes).agreement.interval
        if interval is not None:
            for bound, value in (("low", interval.low), ("share", interval.share), ("high", interval.high)):
                shares.add_metric([model, version, bound], value)
    yield counts
    yield shares


def exposition(session: Session, certificates: Iterable[CertificateEnd] = ()) -> bytes:
    """The record's figures in Prometheus' text format, and when certificates end."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_RecordCollector(session, certificates))
    return generate_latest(registry)
