"""A directory that pickleshare 0.7.5 wrote, in processes with different hash seeds, opens whole in psync."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from psync import PickleShareDB, gethashfile
from psync import pickleshare as dropin
from tests.dropin.old import Old

NAMES = 150

WRITE = """
for i in range({count}):
    db.hset('category', 'name %d' % i, ({seed}, i))
for i in range({count}):
    db.hset('category', i, [{seed}, i])
for i in range(20):
    db.hset('category', (i, 'pair'), {{'seed': {seed}}})
"""

PLAIN = {"hello": 15, "aku ankka": [1, 2, 313], "paths/are/ok/key": [1, (5, 46)], "tyhjä": None, "large": "x" * 100_000}


@pytest.fixture(scope="module", params=["never compressed", "compressed between", "compressed at last"])
def written(request: pytest.FixtureRequest, original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three processes wrote the same category; string keys lie elsewhere each time, so old copies stay behind."""
    folder = tmp_path_factory.mktemp("written") / "old"
    old = Old(original, folder)
    for seed, count in ((1, NAMES), (2, NAMES // 2), (3, NAMES // 4)):
        compress = (request.param, seed) in (("compressed between", 2), ("compressed at last", 3))
        end = "db.hcompress('category')" if compress else ""
        old(WRITE.format(seed=seed, count=count) + end, seed=seed)
    old(f"for key, value in {PLAIN!r}.items(): db[key] = value")
    return folder


@pytest.fixture
def old(written: Path, original: Path, root: Path) -> Old:
    return Old(original, shutil.copytree(written, root / "old"))


@pytest.fixture(params=[PickleShareDB, dropin.PickleShareDB], ids=["psync", "psync.pickleshare"])
def kind(request: pytest.FixtureRequest) -> type[PickleShareDB]:
    return request.param


def test_one_key_lies_in_several_buckets(old: Old) -> None:
    """What the other tests are about: without it they would prove nothing."""
    copies = old("answer = sum('name 0' in db[f] for f in db.keys('category/*'))").value
    assert copies in (1, 2, 3)
    assert len({old("answer = gethashfile('name 0')", seed=seed).value for seed in range(1, 5)}) > 1


def test_plain_values_are_read(old: Old, kind: type[PickleShareDB]) -> None:
    with kind(old.root) as db:
        assert {key: db[key] for key in db.keys() if not key.startswith("category/")} == PLAIN
        assert {key for key in db if key.startswith("category/")} == set(db.keys("category/*"))


def test_a_category_is_what_pickleshare_says_it_is(old: Old, kind: type[PickleShareDB]) -> None:
    said = old.hdict("category")
    assert len(said) == 2 * NAMES + 20
    with kind(old.root) as db:
        assert db.hdict("category") == said
    assert old.hdict("category") == said, "reading changed it"


def test_every_item_is_found_by_its_key(old: Old, kind: type[PickleShareDB]) -> None:
    said = old.hdict("category")
    with kind(old.root) as db:
        some = list(said)[::7]
        assert [db.hget("category", key, fast_only=False) for key in some] == [said[key] for key in some]


def test_what_is_set_now_wins_over_every_old_copy(old: Old, kind: type[PickleShareDB]) -> None:
    expected = old.hdict("category")
    with kind(old.root) as db:
        for key in [f"name {i}" for i in range(0, NAMES, 3)] + list(range(0, NAMES, 5)):
            db.hset("category", key, "new")
            expected[key] = "new"
        assert all(db.hget("category", key, fast_only=False) == value for key, value in expected.items())
        assert db.hdict("category") == expected
    with kind(old.root) as fresh:
        assert fresh.hdict("category") == expected
    assert old.hdict("category") == expected


def test_what_is_deleted_now_is_deleted_with_every_old_copy(old: Old, kind: type[PickleShareDB]) -> None:
    expected = old.hdict("category")
    with kind(old.root) as db:
        for key in [f"name {i}" for i in range(0, NAMES, 4)]:
            db.hdel("category", key)
            del expected[key]
        assert db.hdict("category") == expected
        with pytest.raises(KeyError):
            db.hget("category", "name 0", fast_only=False)
    assert old.hdict("category") == expected


def test_compressing_it_keeps_every_item(old: Old, kind: type[PickleShareDB]) -> None:
    expected = old.hdict("category")
    with kind(old.root) as db:
        db.hcompress("category")
        assert db.keys("category/*") == ["category/xx"]
        assert db.hdict("category") == expected
    assert old.hdict("category") == expected


def test_old_and_new_take_turns_and_lose_nothing(original: Path, root: Path, kind: type[PickleShareDB]) -> None:
    old = Old(original, root)
    expected: dict[object, object] = {}
    with kind(root) as db:
        for turn in range(4):
            for i in range(0, 60, turn + 1):
                db.hset("category", i, ("new", turn))
                db.hset("category", f"new {i}", turn)
                expected |= {i: ("new", turn), f"new {i}": turn}
            db["value"] = ["new", turn]
            assert old("answer = db['value']").value == ["new", turn]
            assert old.hdict("category") == expected
            old(f"for i in range(0, 60, {turn + 2}): db.hset('category', i, ('old', {turn}))")
            old(f"db['value'] = ['old', {turn}]")
            expected |= {i: ("old", turn) for i in range(0, 60, turn + 2)}
            assert db["value"] == ["old", turn]
            assert db.hdict("category") == expected
            if turn == 0:  # the only time: pickleshare's own may take what it finds in an xx for newer than the rest
                old("db.hcompress('category')")
            if turn == 2:
                db.hcompress("category")
            assert db.hdict("category") == expected
        assert db.hdict("category") == expected


def test_numbers_are_in_the_bucket_where_pickleshare_looks(original: Path, root: Path) -> None:
    numbers = [0, 1, -1, -2, 255, 256, 10**30, -(10**30), 0.5, -2.75, 1e300, True, 3 + 4j]
    said = Old(original, root)(f"answer = [gethashfile(n) for n in {numbers!r}]").value
    assert said == [gethashfile(number) for number in numbers]
