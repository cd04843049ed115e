"""People's work in IPython sessions on psync.pickleshare: %store, bookmarks, aliases, the list of modules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dropin.bench import Bench


@pytest.fixture(params=["ipython8", "ipython9"])
def ipython(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


def test_the_sessions_run_on_psync(ipython: Bench, tmp_path: Path) -> None:
    said = ipython.ipython("type(get_ipython().db).__module__", "import sys; len(sys.path) > 3", cwd=tmp_path)
    assert said == ["Out[1]: 'psync.pickleshare'", "Out[2]: True"]


def test_what_store_keeps_is_there_in_the_next_session_until_it_is_deleted(ipython: Bench, tmp_path: Path) -> None:
    first = ipython.ipython(
        "fish, bird = {'aku': [1, 2, 313]}, 'ankka'",
        "%store fish bird",
        "%store",
        "fish['aku'].append(4)",
        "%store fish",
        cwd=tmp_path,
    )
    assert first[1] == "Stored 'fish' (dict)\nStored 'bird' (str)"
    assert "fish             -> {'aku': [1, 2, 313]}" in first[2]
    second = ipython.ipython(
        "%store -r",
        "fish, bird",
        "%store -d bird",
        "%store -r bird",
        "%store",
        "%store -z",
        "%store",
        "get_ipython().db.keys('autorestore/*')",
        cwd=tmp_path,
    )
    assert second[1] == "Out[2]: ({'aku': [1, 2, 313, 4]}, 'ankka')"
    assert "no stored variable or alias bird" in second[3]
    assert "fish" in second[4]
    assert "bird" not in second[4]
    assert second[6] == "Stored variables and their in-db values:"
    assert second[7] == "Out[8]: []"


def test_bookmarks_and_aliases_are_there_in_the_next_session(ipython: Bench, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    bookmarks = (f"%bookmark here {place}", "%bookmark gone /", "%bookmark -d gone")
    ipython.ipython(*bookmarks, "%alias hei echo hei", "%store hei", cwd=tmp_path)
    second = ipython.ipython(
        "%bookmark -l", "cd -b here", "%store -r hei", "hei aku", "%bookmark -r", "%bookmark -l", cwd=tmp_path
    )
    assert second[0] == f"Current bookmarks:\nhere -> {place}"
    assert second[1] == f"(bookmark:here) -> {place}\n{place}"
    assert second[3] == "hei aku"
    assert second[5] == "Current bookmarks:"


def test_the_completer_keeps_its_list_of_modules_for_the_next_session(ipython: Bench, tmp_path: Path) -> None:
    module = tmp_path / "modules" / "oulunkyla.py"
    module.parent.mkdir()
    module.touch()
    look = f"import sys; from IPython.core import completerlib; sys.path.append({str(module.parent)!r})"
    complete = "[m for m in completerlib.try_import('oulunk') or completerlib.get_root_modules() if m == 'oulunkyla']"
    # IPython stores the list only if making it was slow.
    first = ipython.ipython(look, "completerlib.TIMEOUT_STORAGE = -1", complete, cwd=tmp_path)
    assert first[2].endswith("Out[3]: ['oulunkyla']")
    module.unlink()
    second = ipython.ipython(look, complete, "%rehashx", complete, cwd=tmp_path)
    assert second[1] == "Out[2]: ['oulunkyla']", "it was not taken from the store"
    assert second[3] == "Out[4]: []"
