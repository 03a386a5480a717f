"""``wetread users`` and ``wetread tokens``: who may log in, and which programs may ask."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import typer
from rich.table import Table

from deploy.cli_common import Config, console, database_of
from fhir_records import audit
from fhir_records.model import AuditEntry, Role
from fhir_records.store import tokens as token_store
from fhir_records.store import users as user_store

users = typer.Typer(no_args_is_help=True, help="The people who may log in.")
tokens = typer.Typer(no_args_is_help=True, help="The tokens of programs that read /fhir and /dicom-web.")


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    return str(typer.prompt("Password (at least 12 characters)", hide_input=True, confirmation_prompt=True))


Stdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]


PersonName = Annotated[
    str | None, typer.Option(help="The name in signed DICOM documents: Family^Given^Middle^Prefix^Suffix.")
]
Identifier = Annotated[
    str | None, typer.Option(help="The person's number in signed documents, in [signing] identifier_scheme.")
]


@users.command("add")
def add_user(
    username: str,
    role: Annotated[Role, typer.Option(help="What the person may do.")] = Role.CLINICIAN,
    name: Annotated[str, typer.Option(help="The person's name, as it is shown.")] = "",
    person_name: PersonName = None,
    identifier: Identifier = None,
    password_stdin: Stdin = False,
    config: Config = None,
) -> None:
    """Make an account. The first one should be an administrator: --role admin."""
    password = _password(password_stdin)
    with database_of(config) as (_, database), database.session() as session:
        user = user_store.add(
            session,
            username,
            password,
            role,
            name,
            person_name=person_name or "",
            identification=identifier or "",
        )
        audit.record(session, AuditEntry("user added", "command line", detail={"user": user.id, "role": role.value}))
    console.print(f"{user.username} may log in as {role.value}.")


@users.command("password")
def set_password(username: str, password_stdin: Stdin = False, config: Config = None) -> None:
    """Give an account a new password, and end its sessions."""
    password = _password(password_stdin)
    with database_of(config) as (_, database), database.session() as session:
        user_store.set_password(session, username, password)
        audit.record(session, AuditEntry("password set", "command line"))
    console.print("The password is set, and every session of the account is ended.")


@users.command("signing")
def set_signing(
    username: str, person_name: PersonName = None, identifier: Identifier = None, config: Config = None
) -> None:
    """Say how signed documents name a person. What is signed already stays as it is."""
    with database_of(config) as (_, database), database.session() as session:
        user_store.set_signing(session, username, person_name, identifier)
        audit.record(session, AuditEntry("signing name set", "command line"))
    console.print(f"Documents signed by {username} from now on say so.")


@users.command("disable")
def disable_user(username: str, config: Config = None) -> None:
    """Close an account, and end its sessions. It can be opened again."""
    with database_of(config) as (_, database), database.session() as session:
        user_store.disable(session, username)
        audit.record(session, AuditEntry("user disabled", "command line"))
    console.print(f"{username} may log in no longer.")


@users.command("enable")
def enable_user(username: str, config: Config = None) -> None:
    """Open a closed account again."""
    with database_of(config) as (_, database), database.session() as session:
        user_store.enable(session, username)
        audit.record(session, AuditEntry("user enabled", "command line"))
    console.print(f"{username} may log in again.")


@users.command("list")
def list_users(config: Config = None) -> None:
    """The accounts."""
    with database_of(config) as (_, database), database.session() as session:
        table = Table("Username", "Name", "Role", "May log in")
        for user in user_store.list_users(session):
            table.add_row(user.username, user.display_name, user.role.value, "yes" if user.active else "no")
    console.print(table)


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Option(help="Which program the token is for.")],
    scope: Annotated[str, typer.Option(help="SMART v2 scopes, such as system/*.rs")],
    days: Annotated[int | None, typer.Option(help="Valid for so many days; without it, until revoked.", min=1)] = None,
    user: Annotated[str, typer.Option(help="The account whose results it signs: user/DiagnosticReport.u")] = "",
    config: Config = None,
) -> None:
    """Make a token and print it, and nothing else. It is shown this once."""
    expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(days=days) if days else None
    with database_of(config) as (_, database), database.session() as session:
        person = user_store.find(session, user) if user else None
        token = token_store.create(session, name, scope, expires_at, person)
        detail = {"name": name, "scope": scope, "user": person.id if person else None}
        audit.record(session, AuditEntry("token created", "command line", detail=detail))
    typer.echo(token)


@tokens.command("list")
def list_tokens(config: Config = None) -> None:
    """The tokens; what they are is kept nowhere."""
    with database_of(config) as (_, database), database.session() as session:
        table = Table("Name", "Scope", "Created", "Expires", "Last used", "Revoked")
        for token in token_store.list_all(session):
            instants = (token.created_at, token.expires_at, token.last_used_at, token.revoked_at)
            table.add_row(token.name, token.scope, *(f"{at:%Y-%m-%d %H:%M}" if at else "–" for at in instants))
    console.print(table)


@tokens.command("revoke")
def revoke_token(name: str, config: Config = None) -> None:
    """End a token."""
    with database_of(config) as (_, database), database.session() as session:
        token_store.revoke(session, name)
        audit.record(session, AuditEntry("token revoked", "command line", detail={"name": name}))
    console.print(f"The token {name} is revoked.")
