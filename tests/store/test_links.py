"""A link: the keys of a folder as attributes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from psync import PickleShareDB, PickleShareLink
from psync.errors import InvalidKey


def test_an_attribute_is_a_key_in_the_folder(db: PickleShareDB) -> None:
    link = db.getlink("myobjects/test")
    link.foo = 2
    link.bar = link.foo + 5
    assert (link.foo, link.bar) == (2, 7)
    assert {key: db[key] for key in db} == {"myobjects/test/foo": 2, "myobjects/test/bar": 7}
    db["myobjects/test/foo"] = [3]
    assert link.foo == [3]
    link.foo.append(4)
    assert link.foo == [3]


def test_an_attribute_can_be_deleted(db: PickleShareDB) -> None:
    link = db.getlink("folder")
    link.x = None
    assert hasattr(link, "x") and link.x is None
    del link.x
    assert not hasattr(link, "x")
    assert db.keys() == []
    with pytest.raises(AttributeError):
        del link.x


def test_what_is_missing_is_an_attribute_error_and_a_key_error(db: PickleShareDB) -> None:
    link = db.getlink("folder")
    with pytest.raises(AttributeError, match="folder/x") as caught:
        link.x
    assert isinstance(caught.value, KeyError)
    assert getattr(link, "x", "default") == "default"


def test_dir_and_repr_tell_the_names(db: PickleShareDB) -> None:
    link = db.getlink("folder")
    assert repr(link) == "<PickleShareLink 'folder': >"
    link.b, link.a = 1, 2
    db["folder/deeper/c"] = 3
    assert {"a", "b"} <= set(dir(link))
    assert "c" not in dir(link)
    assert repr(link) == "<PickleShareLink 'folder': a;b>"


def test_the_names_of_the_link_itself_are_not_looked_up(db: PickleShareDB) -> None:
    link = db.getlink("folder")
    assert link.db is db
    assert link.keydir == "folder"
    assert not hasattr(link, "__array__")
    assert db.keys() == []


def test_links_lead_into_links_and_categories(db: PickleShareDB) -> None:
    db.getlink("a").db.getlink("a/b").x = 1
    assert db.getlink("a/b").x == 1
    db.hset("a/c", "key", 2)
    assert db.hdict(f"{db.getlink('a').keydir}/c") == {"key": 2}


def test_a_name_that_is_no_key_is_refused(db: PickleShareDB) -> None:
    link = db.getlink("folder")
    for name in ("", "a//b", "../x", "\0"):
        with pytest.raises(InvalidKey):
            setattr(link, name, 1)
    setattr(link, "deeper/name", 1)
    assert db["folder/deeper/name"] == 1


def test_a_link_copies_and_pickles(root: Path) -> None:
    with PickleShareDB(root) as db:
        link = db.getlink("folder")
        link.x = 1
        assert copy.copy(link).x == 1
        again = pickle.loads(pickle.dumps(link))
        assert isinstance(again, PickleShareLink)
        assert again.x == 1 and again.keydir == "folder"
        again.x = 2
        assert link.x == 2
        again.db.close()
