"""Who is it, and may they: log-in, sessions, roles, and the guards against forged requests.

A session is a random token in an HttpOnly cookie, kept on the server as a hash. It is made anew at each log-in, so that
a token put into a browser beforehand never becomes a log-in. SameSite is Lax, not Strict, because links to a study
from the PACS or from mail are meant to work.
"""

from __future__ import annotations

import datetime as dt
import hmac
import math
import secrets
import threading
from dataclasses import dataclass
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import NotAllowed
from fhir_records.identities import log_id
from fhir_records.model import AuditEntry, Role, User
from fhir_records.store import tokens, users, web_sessions
from fhir_records.store.tokens import TokenGrant
from fhir_records.store.web_sessions import OpenSession
from web.pages import Pages
from web.settings import WebSettings

log = structlog.get_logger(__name__)

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # RFC 9110 section 9.2.1
HASHES_AT_ONCE = 4  # each Argon2 hash takes 64 MiB
FORGED = "This request did not come from a page of Wetread, so it was not carried out. Reload the page and try again."


@dataclass(frozen=True, slots=True)
class Sender:
    """Who stores objects."""

    name: str  # of the token or the account
    actor: str  # in the audit trail


class LogInNeeded(Exception):
    """The page is for people who are logged in."""


class Auth:
    """Finds out who sends a request; its methods serve as FastAPI dependencies."""

    def __init__(self, settings: WebSettings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.hashing = threading.BoundedSemaphore(HASHES_AT_ONCE)

    def cookie_name(self, request: Request) -> str:
        """The session cookie's name. A browser takes ``__Host-`` only if Secure, for this host, for every path."""
        return "__Host-wetread" if self.secure(request) else "wetread"

    def secure(self, request: Request) -> bool:
        """Whether cookies set on this request are Secure."""
        return self.settings.wants_secure_cookie(request.url.scheme, request.url.hostname or "")

    def keeps_cookies(self, request: Request) -> bool:
        """Whether the browser will keep the cookies of this request: Secure ones only where it came over https."""
        over_tls = request.url.scheme == "https" or self.settings.origin.startswith("https:")
        return over_tls or not self.secure(request)

    def find(self, request: Request) -> OpenSession | None:
        """The session of a request, or None. A page that refreshes itself is no sign of life."""
        token = request.cookies.get(self.cookie_name(request))
        if not token:
            return None
        with self.database.session() as session:
            return web_sessions.find_session(
                session,
                token,
                dt.datetime.now(dt.UTC),
                dt.timedelta(minutes=self.settings.idle_minutes),
                touch="hx-request" not in request.headers or request.method not in SAFE_METHODS,
            )

    def user(self, request: Request) -> User | None:
        """The person logged in, or None; for routers that know other ways in too."""
        found = self.find(request)
        return found.user if found else None

    def person(self, request: Request) -> OpenSession:
        """Dependency: somebody is logged in.

        Raises:
            LogInNeeded: nobody is.
        """
        found = self.find(request)
        if found is None:
            raise LogInNeeded
        request.state.person = found
        return found

    def admin(self, request: Request) -> OpenSession:
        """Dependency: an administrator is logged in.

        Raises:
            LogInNeeded: nobody is.
            NotAllowed: it is somebody else.
        """
        found = self.person(request)
        require_role(found, Role.ADMIN)
        return found

    def images(self, request: Request) -> None:
        """Dependency: may see images, by a log-in or by a bearer token that covers reading ImagingStudy.

        Raises:
            LogInNeeded: neither is there, or the token is not valid.
            NotAllowed: the token is for something else.
        """
        with self.database.session() as session:
            grant = token_grant(request, session)
        if grant is None:
            self.person(request)
        elif not grant.allows("ImagingStudy", "read"):
            raise NotAllowed("This token is not for images; it needs the scope system/ImagingStudy.r, or a wider one.")

    def store(self, request: Request) -> Sender:
        """Dependency: may store objects, by a bearer token that covers creating ImagingStudy, or by a log-in.

        A log-in counts only with its CSRF token in a header: a browser sends cookies unasked.

        Raises:
            LogInNeeded: neither is there, or the token is not valid.
            NotAllowed: the token, or the account's role, is for something else, or the CSRF token is missing.
        """
        with self.database.session() as session:
            grant = token_grant(request, session)
        if grant is not None:
            if not grant.allows("ImagingStudy", "create"):
                raise NotAllowed("This token may not store; it needs the scope system/ImagingStudy.c, or a wider one.")
            return Sender(grant.name, f"token:{grant.name}")
        person = self.person(request)
        require_role(person, Role.RADIOLOGIST, Role.ADMIN)
        given = request.headers.get("x-csrf-token", "")
        if not hmac.compare_digest(given.encode(), person.csrf_token.encode()):
            raise NotAllowed(FORGED)
        return Sender(person.user.username, person.user.username)

    async def csrf(self, request: Request) -> None:
        """Dependency: a request that changes something carries the session's CSRF token, in a field or a header.

        Raises:
            NotAllowed: it does not.
        """
        if request.method in SAFE_METHODS:
            return
        given = request.headers.get("x-csrf-token") or str((await request.form()).get("csrf_token", ""))
        if not hmac.compare_digest(given.encode(), person_of(request).csrf_token.encode()):
            raise NotAllowed(FORGED)

    def set_cookie(self, request: Request, response: Response, token: str) -> None:
        """Give the browser the session's token."""
        response.set_cookie(
            self.cookie_name(request),
            token,
            max_age=int(self.settings.session_hours * 3600),
            path="/",
            secure=self.secure(request),
            httponly=True,
            samesite="lax",
        )


def person_of(request: Request) -> OpenSession:
    """The session that the route's dependency found."""
    found = request.state.person
    if not isinstance(found, OpenSession):
        raise LogInNeeded
    return found


def token_grant(request: Request, session: Session) -> TokenGrant | None:
    """What the request's bearer token allows (RFC 6750 section 2.1); None where it has none that is valid."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return tokens.check(session, token.strip()) if scheme.lower() == "bearer" else None


def require_role(person: OpenSession, *roles: Role) -> None:
    """Let only these roles pass.

    Raises:
        NotAllowed: the person has another one.
    """
    if person.user.role not in roles:
        wanted = " or ".join(f"{'an' if role is Role.ADMIN else 'a'} {role}" for role in roles)
        raise NotAllowed(f"This is for {wanted}; your account is that of a {person.user.role}.")


class SameOriginOnly:
    """Turns away requests that would change something and that another site's page made the browser send.

    Fetch Metadata (Sec-Fetch-Site) where the browser sends it, else the Origin header (RFC 6454). Programs send
    neither; a bearer token is not sent by a browser unasked, and passes.
    """

    def __init__(self, app: ASGIApp, settings: WebSettings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass the request on."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or self._same(Request(scope)):
            await self.app(scope, receive, send)
            return
        log.warning("request from another site turned away", path_id=log_id(scope["path"]))
        await JSONResponse({"message": FORGED}, status_code=403)(scope, receive, send)

    def _same(self, request: Request) -> bool:
        if request.headers.get("authorization", "").lower().startswith("bearer "):
            return True
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            return site in {"same-origin", "none"}
        origin = request.headers.get("origin")
        here = f"{request.url.scheme}://{request.url.netloc}".lower()
        # Our own Referrer-Policy makes some browsers send "null" over plain http; the CSRF token then decides alone.
        return origin is None or origin.lower() in {"null", here, self.settings.origin}


def log_in_router(auth: Auth, pages: Pages) -> APIRouter:
    """The log-in page, logging in and logging out."""
    router = APIRouter(include_in_schema=False)

    def form_cookie(request: Request) -> str:
        return "__Host-wetread-form" if auth.secure(request) else "wetread-form"

    def show(
        request: Request, next_path: str, *, status: int = 200, error: str = "", username: str = "", wait: int = 0
    ) -> Response:
        # Nobody is logged in yet, so the token of the form is held against a cookie of its own (double submit).
        token = request.cookies.get(form_cookie(request)) or secrets.token_urlsafe(32)
        response = pages.page(
            request,
            "login.html",
            status=status,
            csrf_token=token,
            next_path=next_path,
            error=error,
            username=username,
            reachable=auth.keeps_cookies(request),
        )
        response.set_cookie(
            form_cookie(request), token, path="/", secure=auth.secure(request), httponly=True, samesite="strict"
        )
        if wait:
            response.headers["Retry-After"] = str(wait)
        return response

    @router.get("/login")
    def log_in_page(request: Request, next: str = "/") -> Response:
        if auth.find(request) is not None:
            return RedirectResponse(safe_path(next), status_code=303)
        return show(request, safe_path(next))

    @router.post("/login")
    def log_in(
        request: Request,
        username: str = Form("", max_length=200),
        password: str = Form("", max_length=4000),
        csrf_token: str = Form(""),
        next: str = Form("/"),
    ) -> Response:
        expected = request.cookies.get(form_cookie(request), "")
        if not expected or not hmac.compare_digest(csrf_token.encode(), expected.encode()):
            return show(request, safe_path(next), status=403, error="The page was too old. Please log in once more.")
        name = users.normal_username(username)
        address = request.client.host if request.client else ""
        now = dt.datetime.now(dt.UTC)
        with auth.hashing, auth.database.session() as session:
            if not web_sessions.one_at_a_time(session, name):
                text = "Another log-in with this name is under way. Try again in a moment."
                return show(request, safe_path(next), status=429, error=text, username=username, wait=1)
            wait = math.ceil(web_sessions.wait_seconds(session, name, address, now))
            if wait:
                text = f"Too many failed log-ins. Try again in {wait} seconds."
                return show(request, safe_path(next), status=429, error=text, username=username, wait=wait)
            user = users.authenticate(session, username, password)
            if user is None:
                web_sessions.record_failure(session, name, address, now)
                # Not what was typed: people type their password here by mistake.
                actor = name if users.exists(session, name) else "unknown account"
                audit.record(session, AuditEntry(action="log-in", actor=actor, outcome="failure"))
                log.warning("log-in failed", user_id=log_id(name), address=address)
                text = "This username and password do not belong together."
                return show(request, safe_path(next), status=401, error=text, username=username)
            web_sessions.forget_failures(session, name)
            old = request.cookies.get(auth.cookie_name(request))
            if old:
                web_sessions.close_session(session, old)
            token = web_sessions.open_session(session, user, now, dt.timedelta(hours=auth.settings.session_hours))
            audit.record(session, AuditEntry(action="log-in", actor=user.username))
        response = RedirectResponse(safe_path(next), status_code=303)
        auth.set_cookie(request, response, token)
        response.delete_cookie(form_cookie(request), path="/", secure=auth.secure(request), httponly=True)
        return response

    @router.post("/logout", dependencies=[Depends(auth.person), Depends(auth.csrf)])
    def log_out(request: Request) -> Response:
        with auth.database.session() as session:
            web_sessions.close_session(session, request.cookies.get(auth.cookie_name(request), ""))
            audit.record(session, AuditEntry(action="log-out", actor=person_of(request).user.username))
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(
            auth.cookie_name(request), path="/", secure=auth.secure(request), httponly=True, samesite="lax"
        )
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response

    return router


def safe_path(path: str) -> str:
    """``path`` where it is one of ours, else "/": a log-in must not send people on to another site."""
    ours = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if ours else "/"


async def ask_to_log_in(request: Request, error: Exception) -> Response:
    """The answer to `LogInNeeded`: the log-in page, a redirect for htmx, or a plain 401 for programs."""
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method == "GET" and "hx-request" in request.headers:
        here = request.headers.get("hx-current-url", "/").removeprefix(f"{request.url.scheme}://{request.url.netloc}")
        target = f"/login?next={quote(safe_path(here), safe='/')}"
        return Response(status_code=401, headers={"HX-Redirect": target})
    if "text/html" not in request.headers.get("accept", "") and request.url.path.startswith("/dicom-web"):
        message = {"message": "Log in first, or send a token."}
        return JSONResponse(message, status_code=401, headers={"WWW-Authenticate": "Bearer"})
    target = f"/login?next={quote(safe_path(here), safe='/')}" if request.method == "GET" else "/login"
    return RedirectResponse(target, status_code=303)
