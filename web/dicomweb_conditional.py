"""Conditional requests (RFC 9110 section 13): what a program has already need not be sent again.

What goes out is told by the files, by how it is asked for, and by this version of ours. Nothing may be kept by
browsers, so this is for programs that keep copies knowingly.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from fastapi import Request
from fastapi.responses import Response

from fhir_records.model import Instance
from web.dicomweb_archive import Archive


def conditional(
    request: Request, archive: Archive, found: Sequence[Instance], answer: Callable[[], Response]
) -> Response:
    """The answer, with an ETag; or 304 without one, where the client names that ETag.

    Args:
        request: the client's.
        archive: for the addresses in the answer.
        found: what is answered with.
        answer: makes it.
    """
    headers = {"ETag": _tag(request, archive, found), "Vary": "Accept"}
    named = request.headers.get("if-none-match", "")
    if headers["ETag"] in re.findall(r'"[^"]*"', named) or named.strip() == "*":
        return Response(status_code=304, headers=headers)
    response = answer()
    response.headers.update(headers)
    return response


def _tag(request: Request, archive: Archive, found: Sequence[Instance]) -> str:
    digest = hashlib.sha256()
    asked = (archive.version, archive.base(request), request.scope["path"], request.headers.get("accept", ""))
    for text in (*asked, *(part for one in found for part in (one.sop_uid, one.file_key))):
        digest.update(text.encode("utf-8", "replace") + b"\0")
    digest.update(request.scope["query_string"])
    return f'"{digest.hexdigest()[:32]}"'
