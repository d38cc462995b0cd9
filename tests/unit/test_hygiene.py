"""The hygiene check finds what it is there for."""

from __future__ import annotations

from pathlib import Path

from tests.hygiene import findings


def test_a_registry_address_is_found_with_its_line() -> None:
    text = "first\nindex-url = https://" + "pypi" + ".org/simple\n"
    assert findings(Path("x.txt"), text) == ["x.txt:2: names the registry pypi" + ".org"]


def test_a_machine_path_is_found() -> None:
    assert findings(Path("x.md"), "see /" + "home/somebody/hauberk")


def test_a_lock_file_is_found_by_its_name() -> None:
    assert findings(Path("uv.lock"), "")


def test_ordinary_text_is_clean() -> None:
    assert findings(Path("x.md"), "mounts /var/lib/hauberk and https://example.com/work/in/progress") == []
