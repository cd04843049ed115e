"""The commands of the shell on a URL: as on a directory; and what `psync doctor` says of a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from psync import Counter, Lock, PickleShareDB, WorkQueue
from psync.cli.main import main
from psync.engine import admin
from psync.engine.contract.values import Alive
from psync.engine.redis import doctor
from psync.engine.redis.server_info import ServerInfo, told
from psync.errors import StoreFailed
from tests.cli.shell import ENVIRON, psync
from tests.redis_server import RedisServer

Shell = pytest.CaptureFixture[str]


def typed(capsys: Shell, *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def test_commands_do_on_a_url_what_they_do_on_a_directory(server: RedisServer, capsys: Shell) -> None:
    url = shown = server.url("shell")
    assert typed(capsys, "status", url) == (
        1,
        "",
        f"psync status: {shown} holds nothing of psync's: nobody has used it yet (is it the right prefix?)\n",
    )
    assert typed(capsys, "set", url, "a/key", "[1, 2]", "--json") == (0, "", "")
    assert typed(capsys, "set", "--new", url, "a/key", "1") == (
        1,
        "",
        f"psync set: there is a key 'a/key' in {shown} already\n",
    )
    assert typed(capsys, "get", url, "a/key", "--json") == (0, "[1, 2]\n", "")
    assert typed(capsys, "get", url, "none") == (1, "", f"psync get: there is no key 'none' in {shown}\n")
    assert typed(capsys, "wait", url, "a/key")[:2] == (0, "[1, 2]\n")
    code, out, _ = typed(capsys, "ls", "-l", "--json", url)
    [entry] = json.loads(out)
    assert code == 0 and entry["key"] == "a/key" and 0 < entry["bytes"] < 40 and entry["changed"] is None
    assert typed(capsys, "ls", "-l", url)[1].endswith("  -  a/key\n")
    assert typed(capsys, "dump", url)[:2] == (0, "[('a/key', [1, 2])]\n")
    assert typed(capsys, "put", url, "jobs", "x", "y")[1] == "#0\n#1\n"
    assert typed(capsys, "barrier", url, "meet", "-n", "1")[0] == 0
    with PickleShareDB(url) as db, Lock(db, "door"):
        Counter(db, "hits").add(3)
        WorkQueue(db, "jobs").get()
        seen = json.loads(typed(capsys, "status", url, "--json")[1])
        assert [(q["name"], q["waiting"], q["running"], q["put"]) for q in seen["queues"]] == [("jobs", 1, 1, 2)]
        assert seen["directory"] == shown
        [claim], [held] = seen["queues"][0]["claims"], seen["held"]
        assert claim["id"] == "#0" and claim["who"].startswith(f"pid {os.getpid()} on ")
        assert (held["kind"], held["name"]) == ("lock", "door")
        assert [(o["kind"], o["value"]) for o in seen["others"]] == [("counter", 3)]
        assert [process["pid"] for process in seen["processes"]] == [os.getpid()]
    assert typed(capsys, "top", url)[0] == 0
    assert typed(capsys, "del", url, "a/key") == (0, "", "")
    assert typed(capsys, "ls", url) == (0, "", "")


def test_a_run_shares_its_lines_there(server: RedisServer) -> None:
    ran = psync("run", server.url("run"), "--", "echo", "got", typed="a\nb\n")
    assert (ran.code, sorted(ran.out.splitlines())) == (0, ["got a", "got b"])


@pytest.mark.skipif(os.environ.get("PSYNC_TEST_REDIS") != "all", reason="takes 10 s: only with PSYNC_TEST_REDIS=all")
def test_a_trial_leaves_nothing_behind(server: RedisServer) -> None:
    trial = psync("test", server.url("other"), "--processes", "2", "--rounds", "5")
    assert (trial.code, trial.out.splitlines()[-1]) == (0, f"{server.url('other')}: all is well")
    assert not admin.is_used(server.url("other"))
    with PickleShareDB(server.url("other")) as db:
        assert db.engine.server.ask("DBSIZE") == 0  # type: ignore[attr-defined]


def test_who_only_looks_changes_nothing(server: RedisServer) -> None:
    url = server.url("look")
    with PickleShareDB(url) as db:
        db["a"] = 1
        looking = PickleShareDB(admin.looking_engine(url))
        assert looking["a"] == 1
        for change in (lambda: looking.__setitem__("a", 2), looking.engine.owner, looking.sweep):
            with pytest.raises(StoreFailed, match="only looks"):
                change()
        looking.close()
        assert db["a"] == 1


def test_who_was_killed_is_named_after_the_burial(server: RedisServer) -> None:
    url = server.url("named")
    code = (
        "import os, sys; from psync.engine import open_engine; print(open_engine(sys.argv[1]).owner(), flush=True); "
        "os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, url], env=ENVIRON, stdout=subprocess.PIPE, check=False)
    number = int(killed.stdout)
    with PickleShareDB(url) as one, PickleShareDB(url) as other:
        assert one.engine.alive(number) is Alive.NO
        assert other.engine.alive(number) is Alive.NO
        assert other.engine.describe(number).startswith("pid ") and " on " in other.engine.describe(number)


def test_a_key_file_seals_a_store_on_a_server_too(
    server: RedisServer, capsys: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, url = tmp_path / "key", server.url("sealed")
    key.write_text("a key of these tests, as good as any")
    key.chmod(0o600)
    monkeypatch.setenv("PSYNC_KEY_FILE", str(key))
    assert typed(capsys, "set", url, "a", "secret")[0] == 0
    assert typed(capsys, "get", url, "a") == (0, "secret\n", "")
    assert typed(capsys, "dump", url)[1] == "[('a', 'secret')]\n"
    monkeypatch.delenv("PSYNC_KEY_FILE")
    code, _, err = typed(capsys, "dump", url)
    assert code == 1 and "is sealed, and no key was given" in err


@pytest.mark.parametrize("url", ["reds://host/0", "redis://host/0?lease=0", "http://host"])
def test_a_url_that_can_not_be_is_wrong_use(url: str, capsys: Shell) -> None:
    code, _, err = typed(capsys, "get", url, "key")
    assert code == 2 and "argument DIR: " in err


def test_a_server_that_is_not_there_is_said_so_without_its_password(capsys: Shell) -> None:
    url = "redis://:secret@localhost:1/0?patience=0"
    code, _, err = typed(capsys, "ls", url)
    assert code == 1 and err.startswith("psync ls: the server of redis://localhost:1/0?prefix=psync did not answer")
    code, out, _ = typed(capsys, "doctor", url)
    assert code == 1 and out.startswith("WRONG   server: ") and "secret" not in out + err


def test_doctor_tells_what_a_server_is_and_what_it_means(server: RedisServer, capsys: Shell) -> None:
    url = server.url("doctor")
    with PickleShareDB(url) as db:
        db.engine.owner()
        code, out, _ = typed(capsys, "doctor", url, "--json")
    found = {finding["what"]: finding for finding in json.loads(out)["findings"]}
    assert code == 0 and found["server"]["says"].startswith(("Redis ", "Valkey "))
    assert "keeps all that it answered" in found["persistence"]["says"]
    assert found["eviction"]["state"] == found["memory"]["state"] == found["scripts"]["state"] == "ok"
    assert f"pid {os.getpid()}" in found["at work"]["says"]
    assert typed(capsys, "doctor", url, "--pair")[0] == typed(capsys, "doctor", url, "--restore", "a")[0] == 2


def test_doctor_judges_what_a_server_may_forget() -> None:
    def of(**information: str) -> ServerInfo:
        usual = {"redis_version": "7.2.4", "maxmemory": "0"}
        return told(usual | information, {"save": "", "appendfsync": "everysec"})

    limited = of(maxmemory="1000", maxmemory_policy="allkeys-lru")
    assert doctor.eviction(limited).state == "wrong"
    assert doctor.eviction(of(maxmemory_policy="allkeys-lru")).state == "note"
    assert "alive" in doctor.eviction(limited._replace(policy="volatile-lru")).says
    assert doctor.eviction(of(maxmemory_policy="noeviction")).state == "ok"
    assert doctor.memory({"maxmemory": "1000", "used_memory": "950"}).state == "wrong"
    assert "forgets everything" in doctor.persistence(of(aof_enabled="0"), {}).says
    assert "last second" in doctor.persistence(of(aof_enabled="1"), {}).says
    assert doctor.persistence(of(aof_enabled="1"), {"aof_last_write_status": "err"}).state == "wrong"
    assert doctor.version(of(redis_version="5.0.3"), {}).state == "wrong"
    assert doctor.version(of(), {"valkey_version": "8.0.1"}).says.startswith("Valkey 8.0.1")
    assert doctor.version(told(None, {}), {}).state == "note"
    open_to_all = {"requirepass": "", "bind": "* -::*", "protected-mode": "no"}
    assert [each.state for each in doctor.access(open_to_all, "redis://host/0")] == ["note", "wrong"]
    assert [each.state for each in doctor.access(open_to_all, "unix:///socket")] == ["ok"]
    [replica] = doctor.replication({"role": "slave"})
    assert replica.state == "wrong"
