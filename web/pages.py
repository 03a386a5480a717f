"""Templates and static files: how a page is put together, and which headers guard it."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web import words
from web.kinds import document_words, sr_class_words
from web.settings import WebSettings

HERE = Path(__file__).parent
STATIC = HERE / "static"

_POLICY = (
    "default-src 'none'; script-src 'self'{script}; style-src 'self'; img-src 'self' data:{image}; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'{more}"
)
PAGE_POLICY = _POLICY.format(script="", image="", more="")
# The viewer decodes in WebAssembly and in workers that its loader starts from blobs.
VIEWER_POLICY = _POLICY.format(script=" 'wasm-unsafe-eval'", image=" blob:", more="; worker-src 'self' blob:")

SECURITY_HEADERS = {
    "Content-Security-Policy": PAGE_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), usb=(), payment=()",
    "Cache-Control": "no-store",
}


class SecurityHeaders:
    """Puts the guarding headers on every answer; a route that sets one itself keeps its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add the headers to its answer."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, guarded if scope["type"] == "http" else send)


class VersionedStaticFiles(StaticFiles):
    """Static files; one asked for by its content's hash may be kept for ever, another is asked for again each time."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Scope, status_code: int = 200) -> Response:
        """The file, or 304 where the browser has it."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        # The viewer's parts have their content's hash in their names.
        versioned = scope.get("query_string", b"").startswith(b"v=") or Path(full_path).parent.name == "assets"
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if versioned else "no-cache"
        return response


class Pages:
    """Renders the templates. One for each application."""

    def __init__(self, settings: WebSettings) -> None:
        self.settings = settings
        self._hashes: dict[tuple[str, float], str] = {}
        self._environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            nobreak=words.nobreak,
            answer_words=words.answer_words,
            status_words=words.status_words,
            plain_name=words.plain_name,
            source_words=words.source_words,
            detail_words=words.detail_words,
            document_words=document_words,
            sr_class_words=sr_class_words,
            person_name=words.person_name,
            sex_words=words.sex_words,
            percent=words.percent,
            size=words.size,
            day=words.day,
            when=words.clock(settings.timezone),
        )
        self._environment.globals.update(
            asset=self.asset, count=words.count, settings=settings, zone=str(settings.timezone)
        )

    def asset(self, path: str) -> str:
        """The address of ``path`` under static/, with a hash of its content; without one where it is not built."""
        file = STATIC / path
        try:
            key = (path, file.stat().st_mtime)
        except FileNotFoundError:
            return f"/static/{path}"
        if key not in self._hashes:
            self._hashes[key] = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        return f"/static/{path}?v={self._hashes[key]}"

    def fragment(self, template: str, **context: Any) -> str:
        """The text of a template."""
        return self._environment.get_template(template).render(**context)

    def page(self, request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """A whole page, or a part of one that htmx asked for, for whoever is logged in."""
        context.setdefault("now", dt.datetime.now(dt.UTC))
        context.setdefault("path", request.url.path)
        person = getattr(request.state, "person", None)
        return HTMLResponse(self.fragment(template, person=person, **context), status_code=status)

    def message(self, request: Request, status: int, title: str, text: str, *, reference: str = "") -> HTMLResponse:
        """A page that says what went wrong, and the way out."""
        return self.page(request, "message.html", status=status, title=title, text=text, reference=reference)
