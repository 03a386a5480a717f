"""Names that stand for people and objects where nobody may tell who they are, the same in every export.

Each is an HMAC-SHA256 (RFC 2104) under the installation's secret, so that whoever lacks the secret can neither make
one from an identifier nor try identifiers out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass, field

from fhir_records.identities import UUID_UID_ROOT


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Pseudonyms under one secret."""

    key: bytes = field(repr=False)  # 32 random bytes

    def person(self, patient_uid: str) -> str:
        """The pseudonym of a person: `P` and 16 letters or digits."""
        return "P" + base64.b32encode(self._digest("person", patient_uid)[:10]).decode()

    def uid(self, *parts: str | int) -> str:
        """The UID ("2.25.…", PS3.5 section B.2) that stands for a UID, or for a part of what it names."""
        # RFC 9562 section 5.8: version 8 is for UUIDs that are made in a way of one's own.
        digest = bytearray(self._digest("uid", *map(str, parts))[:16])
        digest[6], digest[8] = digest[6] & 0x0F | 0x80, digest[8] & 0x3F | 0x80
        return f"{UUID_UID_ROOT}.{uuid.UUID(bytes=bytes(digest)).int}"

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self.key, "\x1f".join(parts).encode(), hashlib.sha256)
