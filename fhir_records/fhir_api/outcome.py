"""OperationOutcome (R4): what went wrong, for the program and for the person who looks after it."""

from __future__ import annotations

import json
from enum import StrEnum


class Issue(StrEnum):
    """Kinds of issue that are answered with (R4 issue-type)."""

    INVALID = "invalid"
    NOT_SUPPORTED = "not-supported"
    NOT_FOUND = "not-found"
    LOGIN = "login"
    FORBIDDEN = "forbidden"
    TOO_LONG = "too-long"
    TRANSIENT = "transient"
    EXCEPTION = "exception"


def outcome(issue: Issue, diagnostics: str) -> str:
    """The text of an OperationOutcome with one error. ``diagnostics`` carries no patient data and no internals."""
    return json.dumps(
        {
            "resourceType": "OperationOutcome",
            "issue": [{"severity": "error", "code": issue.value, "diagnostics": diagnostics}],
        },
        ensure_ascii=False,
    )
