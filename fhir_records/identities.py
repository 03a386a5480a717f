"""Identifiers that Wetread makes: of patients, of documents, of whatever it writes."""

from __future__ import annotations

import hashlib
import secrets
import uuid

# PS3.5 section B.2: a UUID as a decimal integer under this root is a valid UID.
UUID_UID_ROOT = "2.25"


def name_uuid(namespace: uuid.UUID, *parts: str | int) -> uuid.UUID:
    """The UUIDv5 of ``parts`` in ``namespace``: the same parts give the same id for ever (RFC 9562 section 5.5)."""
    return uuid.uuid5(namespace, "\x1f".join(str(part) for part in parts))


def name_uid(namespace: uuid.UUID, *parts: str | int) -> str:
    """The DICOM UID ("2.25.…", at most 44 characters) that `name_uuid` of the same parts gives."""
    return f"{UUID_UID_ROOT}.{name_uuid(namespace, *parts).int}"


def check_digit(digits: str) -> str:
    """The check digit of ISO 7064 MOD 11,10 for ``digits``.

    The hybrid system finds every single wrong digit and nearly every pair of digits changed over.
    """
    product = 10
    for digit in digits:
        total = (product + int(digit)) % 10 or 10
        product = total * 2 % 11
    return str((11 - product) % 10)


def new_patient_uid() -> str:
    """A new Patient UID: 12 random digits and their check digit."""
    digits = "".join(secrets.choice("0123456789") for _ in range(12))
    return digits + check_digit(digits)


def is_patient_uid(text: str) -> bool:
    """Whether ``text`` is 13 digits of which the last is the right check digit."""
    return len(text) == 13 and text.isascii() and text.isdigit() and check_digit(text[:12]) == text[12]


def log_id(uid: str) -> str:
    """A short hash of a UID or identifier, so that logs can be followed without naming a patient's study."""
    return hashlib.sha256(uid.encode()).hexdigest()[:12]
