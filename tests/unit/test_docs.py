"""The documentation says what the program does: every list in it is compared with the code."""

from __future__ import annotations

import configparser
import io
import json
import re
import shlex
import ssl
import tomllib
import types
import typing
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import typer
from fastapi import APIRouter
from pydantic import BaseModel
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage
from pynetdicom import AE
from starlette.routing import Route as HttpRoute

from deploy import settings, wiring, work
from deploy.cli import app, roles
from dicom_listener import admission, dimse, received, tls, turned_away
from dicom_listener.association import Listener
from dicom_listener.settings import ListenerSettings, SenderSettings
from dicom_listener.spool import Spool
from fhir_records import metrics
from fhir_records.database import Database
from fhir_records.fhir_api.parameters import PARAMETERS
from fhir_records.fhir_api.search import DEFAULT_COUNT, MAX_COUNT
from fhir_records.jobs import Job, Queue
from fhir_records.model import Role
from fhir_records.renderings import dicom_file, dicom_sr
from fhir_records.renderings.conformance.enumerated import MODALITY
from fhir_records.renderings.conformance.iod import written_classes
from fhir_records.renderings.kinds import FIRST_SERIES_NUMBER, KIND_OF_WORD, SR, SR_CLASSES
from fhir_records.store import users, web_sessions
from tests.unit.fhir_records.renderings.sr_reports import PRESENT, header, report_of
from tests.unit.markdown import anchors, code_blocks, headings, links, plain, section, table
from web import dicomweb_query, pages
from web.auth import Sender
from web.dicomweb_http import dicomweb_router
from web.dicomweb_store import store_router
from workflow.facts import LISTS, SEEN
from workflow.router import ModelVersion, Router

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
PAGES = sorted([*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md")])
EXAMPLE = REPOSITORY / "deploy" / "wetread.example.toml"
UNIT = REPOSITORY / "deploy" / "systemd" / "wetread.service"


def read(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def id_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


# --- configuration ------------------------------------------------------------------------------------------------


def sections() -> dict[str, type[BaseModel]]:
    """The settings' sections by their heading: `[site]`, `[dicom.tls]`, `[[caller]]`."""
    found = {}
    for name, field in settings.File.model_fields.items():
        many = typing.get_origin(field.annotation) is tuple
        model = typing.get_args(field.annotation)[0] if many else field.annotation
        assert isinstance(model, type)
        found[f"`[[{name}]]`" if many else f"`[{name}]`"] = model
        for key, inner in model.model_fields.items():
            if is_section(inner.annotation):
                found[f"`[{name}.{key}]`"] = without_none(inner.annotation)
    return found


def keys(model: type[BaseModel]) -> dict[str, Any]:
    """The keys of a section that are no sections themselves."""
    return {name: field for name, field in model.model_fields.items() if not is_section(field.annotation)}


def without_none(annotation: Any) -> Any:
    """What a key is where it is given."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def is_section(annotation: Any) -> bool:
    """Whether a key is a section within its section."""
    kind = without_none(annotation)
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def type_words(annotation: Any) -> str:
    """The type of a key, as the documentation says it."""
    annotation = without_none(annotation)
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is tuple:
        (kind, _) = typing.get_args(annotation)
        words = [f"`{word}`" for word in typing.get_args(kind)]
        return f"list of {', '.join(words)}" if words else "list of texts"
    if typing.get_origin(annotation) is typing.Literal:
        words = [f"`{word}`" for word in typing.get_args(annotation)]
    elif isinstance(annotation, type) and issubclass(annotation, StrEnum):
        words = [f"`{word.value}`" for word in annotation]
    else:
        words_of = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
        return words_of[annotation]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def default_words(field: Any) -> str:
    """The default of a key, as TOML has it."""
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f'`"{value}"`' if isinstance(value, str) else f"`{value:g}`"


@pytest.mark.parametrize("heading", sections())
def test_every_key_of_the_configuration_is_documented(heading: str) -> None:
    """Each section's table has the keys, types and defaults that the settings have, in their order."""
    documented = [(plain(row[0]), row[1], row[2]) for row in table(section(read("configuration.md"), heading), "key")]
    fields = keys(sections()[heading])
    assert documented == [(name, type_words(field.annotation), default_words(field)) for name, field in fields.items()]


def test_no_section_of_the_configuration_is_documented_that_is_not_there() -> None:
    """The headings of sections are those of the settings, in their order."""
    documented = [heading for heading in headings(read("configuration.md")) if heading.startswith("`[")]
    assert documented == list(sections())


def test_what_has_no_effect_yet_is_said() -> None:
    """Keys that nothing reads are marked, and no others."""
    parts = (path for path in (REPOSITORY / "deploy").glob("*.py") if path.name != "settings.py")
    sources = "".join(path.read_text(encoding="utf-8") for path in parts)
    unread = {"port"}
    assert not re.search(r"\.hl7\b", sources)
    marked = {
        plain(row[0])
        for heading in sections()
        for row in table(section(read("configuration.md"), heading), "key")
        if "no effect yet" in row[3]
    }
    assert marked == unread


def test_the_environment_is_documented() -> None:
    """The variables that the settings read stand in the table, with the default home."""
    rows = {plain(row[0]): row[1] for row in table(read("configuration.md"), "environment variable")}
    source = (REPOSITORY / "deploy" / "settings.py").read_text(encoding="utf-8")
    assert set(re.findall(r"environ(?:\.get\(|\[)\"(WETREAD_\w+)\"", source)) == set(rows) - {"WETREAD_SECTION__KEY"}
    assert settings.DEFAULT_HOME in rows["WETREAD_HOME"]


def test_the_facts_of_rules_are_documented() -> None:
    """What a rule sees, and of which type, is what the table says."""
    rows = table(section(read("configuration.md"), "Rules"), "name")
    seen: dict[str, str] = {}
    for name, attributes in SEEN.items():
        if name in LISTS:
            seen[name] = "list"
        owner = f"{name}[0]" if name in LISTS else name
        seen.update({f"{owner}.{attribute}": kind.value for attribute, kind in attributes.items()})
    assert {plain(row[0]): row[1] for row in rows} == seen


def check_configuration(text: str, tmp_path: Path) -> settings.Settings:
    """The settings of a configuration, whose routes fit the model that comes with Wetread."""
    path = tmp_path / "wetread.toml"
    path.write_text(text, encoding="utf-8")
    loaded = settings.load(path, {"WETREAD_HOME": str(tmp_path)})
    Router(
        work.routes_of(loaded.file.route),
        [ModelVersion("brain_mr_tumour", "0.1.0")],
    )
    wiring.listener_settings(loaded)
    wiring.web_settings(loaded)
    return loaded


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(block, id=f"{id_of(path)}-{number}")
        for path in PAGES
        for number, block in enumerate(code_blocks(path.read_text(encoding="utf-8"), "toml"), start=1)
    ],
)
def test_every_configuration_in_the_docs_is_valid(text: str, tmp_path: Path) -> None:
    """What people copy out of the documentation starts."""
    names = set(re.findall(r'^name = "(.+)"', text, re.MULTILINE))
    # An excerpt may name a destination that another excerpt has.
    missing = {
        name for to in re.findall(r"results_to = (\[.*\])", text) for name in tomllib.loads(f"x={to}")["x"]
    } - names
    more = "".join(f'[[destination]]\nname="{name}"\nae_title="A"\nhost="h"\nport=104\n' for name in sorted(missing))
    check_configuration(f"{text}\n{more}", tmp_path)


def test_the_example_has_every_key_and_is_valid(tmp_path: Path) -> None:
    """The example is loaded, and so is what it shows commented out, whose values are the defaults."""
    text = EXAMPLE.read_text(encoding="utf-8")
    check_configuration(text, tmp_path)
    whole = tomllib.loads(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE))
    shown = tomllib.loads(text)
    for heading, model in sections().items():
        name = heading.strip("`[]")
        entries = _entries(whole, name)
        assert set().union(*entries) - {"tls"} == set(keys(model)) - {"tls"}, heading
        for key, field in keys(model).items():
            commented = not any(key in entry for entry in _entries(shown, name))
            if commented and field.default is not None:
                expected = list(field.default) if isinstance(field.default, tuple) else field.default
                assert all(entry[key] == expected for entry in entries if key in entry), f"{heading} {key}"


def _entries(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found: Any = document
    for part in name.split("."):
        found = found.get(part, {})
    return found if isinstance(found, list) else [found]


# --- command line -------------------------------------------------------------------------------------------------


def commands(command: Any = None, name: str = "wetread") -> dict[str, Any]:
    """Every command that people are shown, by its whole name."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", None)
    if inner is None:
        return {} if command.hidden else {name: command}
    return {key: value for part, one in inner.items() for key, value in commands(one, f"{name} {part}").items()}


def options(command: Any) -> dict[str, str]:
    """A command's options and arguments, and their defaults in words."""
    found = {}
    for parameter in command.params:
        argument = parameter.param_type_name == "argument"
        name = (parameter.metavar or parameter.name).upper() if argument else parameter.opts[0]
        found[name] = "required" if parameter.required else str(getattr(parameter.default, "value", parameter.default))
    return found


def switches(command: Any) -> set[str]:
    """Every form in which a command's options can be given, the negative ones too."""
    return {form for parameter in command.params for form in (*parameter.opts, *parameter.secondary_opts)}


def test_every_command_is_documented() -> None:
    """The headings of commands are the commands that there are."""
    documented = {plain(heading) for heading in headings(read("cli.md")) if heading.startswith("`")}
    assert documented == set(commands())


@pytest.mark.parametrize("name", commands())
def test_every_option_is_documented(name: str) -> None:
    """Each command's table has its options and arguments with their defaults, in their order."""
    rows = {plain(row[0]): plain(row[1]) for row in table(section(read("cli.md"), f"`{name}`"), "option")}
    there = options(commands()[name])
    assert list(rows) == list(there)
    for option, default in there.items():
        if default not in {"None", "False", ""}:
            assert rows[option] == default, option


def test_every_command_line_in_the_docs_is_one_of_ours() -> None:
    """Commands that people copy out of the documentation exist, with those options."""
    known = commands()
    seen = 0
    for path in PAGES:
        for block in code_blocks(path.read_text(encoding="utf-8"), "sh"):
            for found in re.findall(r"(?:^|[ /(])wetread ([a-z][^)#\n]*)", block, re.MULTILINE):
                words = shlex.split(found)
                name = next(
                    (f"wetread {' '.join(words[:n])}" for n in (2, 1) if f"wetread {' '.join(words[:n])}" in known),
                    None,
                )
                assert name is not None, f"{id_of(path)}: wetread {found}"
                given = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert given <= switches(known[name]) | set(options(known[name])), f"{id_of(path)}: wetread {found}"
                seen += 1
    assert seen > 5


# --- conformance --------------------------------------------------------------------------------------------------


def test_statuses_of_c_store() -> None:
    """The table has every status that a C-STORE is answered with, and no other."""
    documented = {int(plain(row[0]), 16) for row in table(section(read("conformance.md"), "C-STORE"), "status")}
    assert documented == {
        dimse.SUCCESS,
        dimse.OUT_OF_RESOURCES,
        dimse.DOES_NOT_MATCH_SOP_CLASS,
        dimse.CANNOT_UNDERSTAND,
        dimse.PROCESSING_FAILURE,
        dimse.SOP_CLASS_NOT_SUPPORTED,
    }


def test_limits_of_associations() -> None:
    """AE title, sizes and times are the listener's and the sender's defaults; the UIDs are those in use."""
    text = read("conformance.md")
    listener, sender = ListenerSettings(), SenderSettings()
    for words in (
        f"| AE title | configured, `{listener.ae_title}` |",
        f"| Largest PDU asked for | {listener.max_pdu} bytes |",
        f"| Associations at once | configured, {listener.max_associations} |",
        f"| Associations at once, of one address | configured, {listener.max_associations_per_caller} |",
        f"| Connections a minute, of one address | configured, {listener.max_connections_per_minute} |",
        f"| Largest data set | configured, {listener.max_object_bytes // 2**20} MiB |",
        f"| Slowest data set | configured, {listener.min_bytes_per_second} bytes/s, over "
        f"{listener.dimse_timeout:g} s |",
        f"| Negotiation and release must take no longer than | {listener.acse_timeout:g} s |",
        f"| One DIMSE message must take no longer than | {listener.dimse_timeout:g} s |",
        f"| Silence after which an association is aborted | {listener.network_timeout:g} s |",
        f"| Implementation Class UID | {received.IMPLEMENTATION_CLASS_UID} |",
        f"| Implementation Version Name | `{received.IMPLEMENTATION_VERSION_NAME}` |",
        f"| Largest PDU taken | {sender.max_pdu} bytes |",
        f"| Implementation Class UID | {dicom_file.IMPLEMENTATION_CLASS_UID} |",
        f"SOP class {Comprehensive3DSRStorage},",
        f"port {settings.Dicom().port} unless configured. HTTP/1.1: port {settings.Http().port}",
    ):
        assert words in text


def test_rejections_are_documented() -> None:
    """The table has each result, source and reason that an association is rejected with, and no other."""
    rows = table(section(read("conformance.md"), "Association policies"), "an association is rejected")
    documented = {tuple(int(cell.split()[0]) for cell in row[1:]) for row in rows}
    given = {
        admission._CALLED_AE_TITLE_NOT_RECOGNIZED,
        admission._CALLING_AE_TITLE_NOT_RECOGNIZED,
        admission._TEMPORARY_CONGESTION,
        admission._LOCAL_LIMIT_EXCEEDED,
    }
    assert documented == given


def test_tls_is_documented() -> None:
    """The cipher suites and the port are those in use, and a flood of rejections is told as it says."""
    text, guide = read("conformance.md"), read("security.md")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(tls.CIPHERS)
    suites = [suite for suite in context.get_ciphers() if suite["protocol"] == "TLSv1.2"]
    row = next(row for row in table(section(text, "8 Security"), "PS3.15") if row[0].startswith("cipher"))
    assert len(row[1].split(", ")) == len(suites) == 4
    for suite in suites:
        exchange, signature, kind, bits, mode, digest = suite["name"].replace("AES", "AES-").split("-")
        assert f"`TLS_{exchange}_{signature}_WITH_{kind}_{bits}_{mode}_{digest}`" in row[1]
    assert f"{settings.DicomTls.model_fields['port'].default} unless configured" in text
    assert f"the first {turned_away.SINGLY} within a minute" in guide
    assert f"{admission.CONNECTIONS_PER_ASSOCIATION} for each association" in guide


def test_presentation_contexts_that_are_accepted(tmp_path: Path) -> None:
    """Storage of known, retired, private and unknown classes is accepted in any syntax, other services are not."""
    mr, private = "1.2.840.10008.5.1.4.1.1.4", "1.3.6.1.4.1.99999.1"
    retired, unknown = "1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.99999"
    find, commitment, verification = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.1.20.1", "1.2.840.10008.1.1"
    jpeg_ls, implicit = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2"
    away = Database("postgresql://nobody@127.0.0.1:9/none")
    listener = Listener(ListenerSettings(port=0, host="127.0.0.1"), away, Spool(tmp_path))
    listener.start()
    try:
        ae = AE()
        for uid in (mr, private, retired, unknown, find, commitment, verification):
            ae.add_requested_context(
                uid, [implicit] if uid in (find, commitment, verification) else [jpeg_ls, implicit]
            )
        assoc = ae.associate("127.0.0.1", listener.port, ae_title="WETREAD")
        accepted = {str(one.abstract_syntax): str(one.transfer_syntax[0]) for one in assoc.accepted_contexts}
        refused = {str(one.abstract_syntax): one.result for one in assoc.rejected_contexts}
        assoc.release()
    finally:
        listener.stop(0)
        away.close()
    assert accepted == {**dict.fromkeys((mr, private, retired, unknown), jpeg_ls), verification: implicit}
    assert refused == {find: 3, commitment: 3}


def web_routes(router: APIRouter) -> set[str]:
    return {route.path for route in router.routes if isinstance(route, HttpRoute)}


def nobody() -> Sender:
    """Stores nothing."""
    raise AssertionError


def test_routes_of_dicomweb() -> None:
    """The table has every resource that is served; nothing but the two of storing takes anything else than GET."""
    router = dicomweb_router(Database("postgresql://nobody@127.0.0.1:9/none"), Path(), ZoneInfo("UTC"))
    short = {":path": "", "{study_uid}": "{study}", "{series_uid}": "{series}", "{sop_uid}": "{instance}"}
    served = set()
    for path in web_routes(router):
        for long, word in short.items():
            path = path.replace(long, word)  # noqa: PLW2901 -- written as the documentation writes it
        served.add(path)
    rows = table(section(read("conformance.md"), "3.3 DICOMweb"), "resource")
    documented = [plain(row[0]) for row in rows]
    assert len(documented) == len(set(documented))
    assert set(documented) == served
    assert {method for route in router.routes for method in getattr(route, "methods", ())} == {"GET"}
    storing = store_router(
        wiring.web_settings(settings.load(environ={})), Database("postgresql://nobody@127.0.0.1:9/none"), nobody
    )
    stored = {plain(row[0]).replace("{study}", "{study_uid}") for row in rows if "STOW-RS" in row[1]}
    assert web_routes(storing) == stored


def test_matching_attributes_of_dicomweb() -> None:
    """The attributes that searches match, and the largest answer, are the documented ones."""
    text = section(read("conformance.md"), "3.3 DICOMweb")
    documented = {row[0]: set(plain(row[1]).split(", ")) for row in table(text, "search")}
    assert documented == {
        "studies": dicomweb_query.STUDY_KEYS,
        "series": dicomweb_query.SERIES_KEYS,
        "instances": dicomweb_query.INSTANCE_KEYS,
    }
    assert f"(studies: at most {dicomweb_query.MAX_STUDIES})" in text


def test_search_parameters_of_fhir() -> None:
    """The table has every type with its search parameters, and the page sizes."""
    text = section(read("conformance.md"), "9.4 FHIR R4 (4.0.1)")
    documented = {plain(row[0]): plain(row[1]).split(", ") for row in table(text, "type")}
    assert documented == {type: [parameter.name for parameter in found] for type, found in PARAMETERS.items()}
    assert f"({DEFAULT_COUNT} unless given, at most {MAX_COUNT};" in text


def concepts(item: Dataset) -> Iterator[str]:
    """The concept names of a content tree, as scheme and code."""
    for name in item.get("ConceptNameCodeSequence", ()):
        yield f"{name.CodingSchemeDesignator} {name.CodeValue}"
    for child in item.get("ContentSequence", ()):
        if child.RelationshipType != "HAS ACQ CONTEXT":  # TID 1602, named in the row of its group
            yield from concepts(child)


def test_objects_that_are_created() -> None:
    """The table of objects has the SOP classes, modalities and series numbers of the renderings, and no others."""
    rows = table(section(read("conformance.md"), "9.2 Other objects that are created"), "object")
    written = {kind: FIRST_SERIES_NUMBER[kind] - 1 for kind in KIND_OF_WORD.values()}
    assert {(plain(row[1]), plain(row[2])) for row in rows} == {(str(uid), word) for uid, word in MODALITY.items()}
    # A report has the same number in each class that it may go in.
    numbers = [*written.values(), *[written[SR]] * (len(SR_CLASSES) - 1)]
    assert sorted(plain(row[3]) for row in rows) == sorted(f"{number} + revision" for number in numbers)
    assert {plain(row[1]) for row in rows} == set(written_classes())


def test_content_of_the_structured_report() -> None:
    """The table of the content tree has the concepts of a rendered report, and no others."""
    evidence = [header(number) for number in range(1, 4)]
    ds = dcmread(io.BytesIO(dicom_sr.render_sr(report_of(evidence, PRESENT), evidence).content))
    own = {f"{code.scheme} {code.value}" for code in (PRESENT.code,)}
    rows = table(section(read("conformance.md"), "9.1 Objects that are created: Comprehensive 3D SR"), "concept")
    assert {row[1] for row in rows if row[1]} == set(concepts(ds)) - own


# --- operations, security, architecture ---------------------------------------------------------------------------


def test_metrics_are_documented() -> None:
    """The table has every figure with its labels."""
    documented = {plain(row[0]): plain(row[1]) for row in table(section(read("operations.md"), "Health"), "metric")}
    figures = [(name, labels) for name, _, labels, *_ in (*metrics._FIGURES, *metrics._AGREEMENT_FIGURES)]
    figures.append(metrics.CERTIFICATES[::2])
    assert documented == {name: ", ".join(labels) for name, labels in figures}


def test_security_headers_are_documented() -> None:
    """The table has every header that guards an answer, with its value; the viewer's exceptions are named."""
    text = section(read("security.md"), "What browsers are told")
    assert {plain(row[0]): plain(row[1]) for row in table(text, "header")} == pages.SECURITY_HEADERS
    page, viewer = (set(policy.split("; ")) for policy in (pages.PAGE_POLICY, pages.VIEWER_POLICY))
    for directive in viewer - page:
        assert f"`{directive}`" in text


def test_numbers_of_log_in_are_documented() -> None:
    """Lengths, waits and ends of sessions are those of the code; the roles are those that there are."""
    text = section(read("security.md"), "People")
    http = settings.Http()
    assert {plain(row[0]) for row in table(text, "role")} == set(Role)
    for words in (
        f"at least {users.MIN_PASSWORD_LENGTH} characters",
        f"After {web_sessions.FREE_FAILURES} failures of one name",
        f"within {web_sessions.FAILURE_WINDOW.seconds // 60} minutes",
        f"{web_sessions.FIRST_WAIT_S:g} seconds at first, doubled up to {web_sessions.LONGEST_WAIT_S:g}",
        f"of one address, after {web_sessions.FREE_FAILURES_ADDRESS}",
        f"It ends {http.session_hours:g} hours after the log-in, or {http.idle_minutes:g} minutes",
    ):
        assert words in text.replace("\n  ", " ")


def test_import_contracts_are_documented() -> None:
    """The table of contracts is the one that the linter holds."""
    linter = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    documented = {plain(row[0]): row[1] for row in table(read("architecture.md"), "contract")}
    assert documented == {contract["id"]: contract["name"] for contract in linter["contracts"]}
    assert [plain(row[0]) for row in table(read("architecture.md"), "package")] == linter["root_packages"]


def test_jobs_are_documented() -> None:
    """The path of a job has every job, a queue that there is, and a file that there is."""
    rows = table(section(read("architecture.md"), "The path of a job"), "job")
    assert [plain(row[0]) for row in rows] == [job.value for job in Job]
    assert {plain(row[1]) for row in rows} == {queue.value for queue in Queue}
    assert all((REPOSITORY / plain(row[3])).is_file() for row in rows)


def test_places_in_the_code_are_where_the_docs_say() -> None:
    """A function that the docs name with its file, as in `deploy/work.py: handlers`, is there."""
    named = [
        place for path in PAGES for place in re.findall(r"`([\w/]+\.py): (\w+)`", path.read_text(encoding="utf-8"))
    ]
    assert named
    for file, name in named:
        assert re.search(rf"^(def|class) {name}\b", (REPOSITORY / file).read_text(encoding="utf-8"), re.MULTILINE), name


def test_the_unit_of_systemd_fits_the_program(tmp_path: Path) -> None:
    """It starts a command that there is, stops the supervisor alone, and waits as long as the roles may take."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # keys are case-sensitive
    unit.read(UNIT, encoding="utf-8")
    service = unit["Service"]
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "wetread"
    assert f"wetread {arguments[0]}" in commands()
    assert service["KillMode"] == "mixed"
    assert service["OOMPolicy"] == "continue"
    graces = sum(role.grace_s for role in roles(settings.load(environ={"WETREAD_HOME": str(tmp_path)})))
    assert int(service["TimeoutStopSec"]) > graces
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} == set(service["RestrictAddressFamilies"].split())


# --- every page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=id_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Every link to a file, a picture or a heading of ours leads to one that is there."""
    for link in links(path.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{link} in {id_of(path)}"
        if anchor:
            assert anchor in anchors(target), f"{link} in {id_of(path)}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    """No page of the documentation lies where nobody finds it."""
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached:
            continue
        reached.add(path)
        targets = (link.partition("#")[0] for link in links(path.read_text(encoding="utf-8")))
        waiting += [(path.parent / link).resolve() for link in targets if link.endswith(".md") and ":" not in link]
    assert set(PAGES) <= reached


def test_pictures_are_small_and_shown() -> None:
    """Each committed picture is used by a page, and none weighs more than 300 kB."""
    shown = {(path.parent / link).resolve() for path in PAGES for link in links(path.read_text(encoding="utf-8"))}
    for picture in (DOCS / "pictures").glob("*.png"):
        assert picture in shown, picture.name
        assert picture.stat().st_size <= 300_000, picture.name


def test_the_figure_of_the_readme_is_the_models() -> None:
    """The balanced accuracy in the README is the one that was measured, and says that it flatters."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    metrics_file = REPOSITORY / "inference" / "bundles" / "brain_mr_tumour" / "metrics.json"
    measured = re.search(r'"balanced_accuracy": ([0-9.]+)', metrics_file.read_text(encoding="utf-8"))
    assert measured is not None
    assert f"{float(measured[1]):.2f} balanced accuracy" in text.replace("\n  ", " ")
    assert "Not a certified medical device" in text
