"""What the tests of the command line share: one run of the demo, the command line itself, and a browser.

Makes what tests of this folder share importable: ``from chromium import Browser``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pygen.cli import main

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own: classifiers that tests have trained are not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of the demo on digits, with networks that are hardly trained."""
    out = tmp_path_factory.mktemp("demo") / "new" / "demo"
    assert main(["demo", "--steps", "20", "--out", str(out)]) == 0
    return out


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must fail: status 2, one line on stderr, which is returned."""

    def run(*argv: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in argv]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("pygen: error: ")
        return lines[0]

    return run
