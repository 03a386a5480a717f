"""What strangers send brings the listener to no error that it does not expect: the corpus, and some hundred cases more.

The long run is ``python -m tests.fuzz``.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_listener.library import prepare_library
from tests.fuzz import pictures, seeds, tls_wire, wire
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, time_limit

CASES_ON_THE_WIRE = 200
CASES_OF_TLS = 150
CASES_OF_PICTURES = 200


def started(name: str) -> list[bytes]:
    """What a target starts from."""
    prepare_library()
    return [content for kind in TARGETS[name][1] for content in seeds.corpus(kind).values()]


@pytest.mark.parametrize("kind", seeds.kinds())
def test_the_corpus_is_the_one_that_is_made(kind: str) -> None:
    """Every well-formed message and object lies in the corpus as it is made now."""
    kept = seeds.corpus(kind)
    for name, content in seeds.kinds()[kind].items():
        assert kept[name.replace(" ", "-")] == content, f"{kind} {name}: python -m tests.fuzz --write-corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_brings_no_unexpected_error(name: str) -> None:
    """Well-formed bytes, and those that once brought a fault to light, are taken or refused in documented ways."""
    target, _ = TARGETS[name]
    cases = started(name)
    assert cases
    for content in cases:
        with time_limit():
            target(content)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_broken_bytes_bring_no_unexpected_error(name: str, rng: random.Random) -> None:
    """Bytes with something wrong in them are taken or refused in documented ways, and in time."""
    target, _ = TARGETS[name]
    pool = started(name)
    content = mutated(rng.choice(pool), pool, rng)
    with time_limit():
        target(content)


@pytest.fixture
def there(tmp_path: Path) -> wire.Victim:
    """A listener in a process of its own."""
    with wire.victim(tmp_path) as there:
        yield there


def test_no_peer_stops_the_listener(there: wire.Victim) -> None:
    """After hundreds of broken conversations, eight at a time, it lives, answers, leaks nothing, wrote only its own."""
    before = wire.warmed(there)
    storm = wire.Storm(there, seed=1)
    storm.run(cases=CASES_ON_THE_WIRE)
    assert storm.faults == []
    assert storm.cases >= CASES_ON_THE_WIRE
    assert there.answers > CASES_ON_THE_WIRE // 4
    wire.echo(there)
    wire.check_rest(there, before)
    wire.check_folder(there)


def test_no_handshake_stops_the_listener(tmp_path: Path) -> None:
    """Wrong handshakes of all kinds, twelve at a time: it lives, leaks nothing, and lets the right people in, soon."""
    folk = tls_wire.people(tmp_path / "people")
    (tmp_path / "victim").mkdir()
    with wire.victim(tmp_path / "victim", *folk.files) as there:
        storm = tls_wire.TlsStorm(there, folk, seed=1)
        before = wire.warmed(there)
        storm.echo()
        storm.run(cases=CASES_OF_TLS)
        assert storm.faults == []
        assert storm.cases >= CASES_OF_TLS
        storm.echo()
        wire.check_rest(there, before)
        assert "Traceback" not in there.log()
        for words in ("certificate revoked", "certificate has expired", "did not return a certificate", "issuer"):
            assert words in there.log()


def test_every_decoder_is_tried() -> None:
    """Of each transfer syntax that is decoded here there is an object to be spoiled."""
    assert pictures.without_seed() == set()


def test_no_picture_stops_who_shows_it(tmp_path: Path) -> None:
    """Sound objects are shown; spoiled ones are shown, refused in words, or end a child that is no more than that."""
    prepare_library()
    gallery = pictures.Gallery(tmp_path, seed=1)
    gallery.run(cases=CASES_OF_PICTURES)
    assert gallery.faults == []
    assert gallery.cases >= CASES_OF_PICTURES
    assert set(gallery.sound) == {"shown"}
    assert gallery.outcomes["refused"] > CASES_OF_PICTURES // 4
