"""The content security policy and the templates agree."""

from __future__ import annotations

import re
from pathlib import Path

from web.pages import HERE, PAGE_POLICY, VIEWER_POLICY


def directives(policy: str) -> dict[str, list[str]]:
    return {name: values for name, *values in (part.split() for part in policy.split(";"))}


def test_the_policy_allows_nothing_that_is_not_named() -> None:
    """Nothing by default, our own files only, no frame around us, no inline script or style, no eval."""
    policy = directives(PAGE_POLICY)
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == ["'none'"]
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == ["'self'"]
    assert "unsafe" not in PAGE_POLICY


def test_the_study_page_adds_what_the_viewer_needs_and_no_more() -> None:
    """WebAssembly, workers and images from blobs."""
    more = {(name, value) for name, values in directives(VIEWER_POLICY).items() for value in values} - {
        (name, value) for name, values in directives(PAGE_POLICY).items() for value in values
    }
    assert more == {
        ("script-src", "'wasm-unsafe-eval'"),
        ("worker-src", "'self'"),
        ("worker-src", "blob:"),
        ("img-src", "blob:"),
    }


def test_no_template_needs_what_the_policy_forbids() -> None:
    """No inline script, style, handler or javascript: address; nothing from another host; htmx never evaluates."""
    templates = sorted(Path(HERE, "templates").glob("*.html"))
    assert len(templates) > 8
    for template in templates:
        text = template.read_text(encoding="utf-8")
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:|hx-on|hx-vars|js:", text), template.name
        assert not re.search(r"<script(?![^>]*\ssrc=)", text), template.name
        assert not re.search(r"(src|href)=\"https?:", text), template.name
        assert not re.search(r"hx-trigger=\"[^\"]*\[", text), "a filter would be evaluated"
        assert "| safe" not in text, template.name


def test_every_form_that_posts_carries_the_csrf_token() -> None:
    """Each has the hidden field."""
    for template in Path(HERE, "templates").glob("*.html"):
        for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", template.read_text(encoding="utf-8"), re.S):
            assert 'name="csrf_token"' in form or "{{ hidden(csrf, " in form, template.name
    assert 'name="csrf_token" value="{{ csrf }}"' in Path(HERE, "templates", "signing.html").read_text(encoding="utf-8")
