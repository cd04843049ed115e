"""Ways to a server: a password, TLS, a socket, sentinels and a cluster, each with real servers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from psync import Counter, Lock, PickleShareDB, WorkQueue
from psync.engine.redis.engine import RedisEngine
from psync.errors import StoreFailed
from tests.redis_server import RedisServer, only_when_asked
from tests.sync.other_process import eventually

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, and whose cluster's ports (10,000 more) can be."""
    with contextlib.ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            one = stack.enter_context(socket.create_server((HOST, 0)))
            port = one.getsockname()[1]
            if port < 55_000:
                found.append(port)
        return found


def use(db: PickleShareDB) -> None:
    """A little of everything."""
    db["a/b"] = 1
    db.hset("c", "k", 2)
    assert (db["a/b"], db.hget("c", "k"), db.modify("n", lambda n: n + 1, 0)) == (1, 2, 1)
    queue = WorkQueue(db, "jobs")
    queue.put_many(range(3))
    for _ in range(3):
        task = queue.get(timeout=10)
        task.done(-task.value)
    assert sorted(value for _, value in queue.results.collect(timeout=0)) == [-2, -1, 0]
    with Lock(db, "door"):
        Counter(db, "c").add(1)
    assert Counter(db, "c").wait_for(1, timeout=5) and sorted(db) == sorted([*db.keys("c/*"), "a/b", "n"])


def test_a_password_is_needed_where_there_is_one(start: Callable[..., RedisServer]) -> None:
    server = start(password="secret")
    with PickleShareDB(server.url("p", password="secret")) as db:
        use(db)
    for wrong in (server.url("p"), server.url("p", password="wrong")):
        began = time.monotonic()
        with pytest.raises(StoreFailed, match=r"refused: .*Give a user and password") as caught:
            PickleShareDB(wrong)
        assert time.monotonic() - began < 20, "it was asked again and again"
        assert "secret" not in str(caught.value) and "wrong" not in caught.value.args[0].partition("refused")[0]


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A folder with a certificate for this host, which signed itself, and its key."""
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl on PATH to make a certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=DNS:localhost,IP:{HOST}"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return tmp_path


def test_tls_encrypts_and_knows_the_server_by_its_certificate(
    start: Callable[..., RedisServer], certificate: Path
) -> None:
    (port,) = free_ports(1)
    files = ("--tls-cert-file", str(certificate / "cert.pem"), "--tls-key-file", str(certificate / "key.pem"))
    try:
        start(*files, "--tls-port", str(port), "--tls-auth-clients", "no")
    except subprocess.CalledProcessError:
        pytest.skip("this redis-server was built without TLS")
    url = f"rediss://{HOST}:{port}/0?prefix=tls"
    with PickleShareDB(f"{url}&ssl_ca_certs={certificate / 'cert.pem'}") as db:
        use(db)
    began = time.monotonic()
    with pytest.raises(StoreFailed, match=r"CERTIFICATE_VERIFY_FAILED.*ssl_ca_certs=FILE"):
        PickleShareDB(url)
    assert time.monotonic() - began < 20, "it was asked again and again"


# -- sentinels -------------------------------------------------------------------------------------


class Sentinels:
    """A master, its replica, and three sentinels, which put the replica in the master's place when that dies."""

    def __init__(self, start: Callable[..., RedisServer], folder: Path) -> None:
        master, replica, *self.ports = free_ports(5)
        self.servers = {master: start(port=master)}
        self.servers[replica] = start("--replicaof", HOST, str(master), port=replica)
        eventually(lambda: ask(replica, "INFO", "replication")["master_link_status"] == "up")
        for port in self.ports:
            configuration = folder / f"sentinel-{port}.conf"
            configuration.write_text(
                f"sentinel monitor mine {HOST} {master} 2\n"
                "sentinel down-after-milliseconds mine 1000\n"
                "sentinel failover-timeout mine 5000\n"
            )
            start("--sentinel", port=port, configuration=configuration)
        for port in self.ports:
            eventually(lambda port=port: self._knows_all(port))

    def _knows_all(self, port: int) -> bool:
        about = ask(port, "SENTINEL MASTER", "mine")
        return bool(about["num-other-sentinels"] == 2 and about["num-slaves"] == 1)

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{port}" for port in self.ports)
        return f"redis://{hosts}/0?prefix=s&sentinel=mine"

    def master(self) -> int:
        port: int = ask(self.ports[0], "SENTINEL GET-MASTER-ADDR-BY-NAME", "mine")[1]
        return port


def ask(port: int, *command: str) -> Any:
    with redis.Redis(HOST, port) as client:
        return client.execute_command(*command)


@only_when_asked
def test_sentinels_lead_to_the_replica_when_the_master_is_dead(
    start: Callable[..., RedisServer], tmp_path: Path
) -> None:
    sentinels = Sentinels(start, tmp_path)
    with PickleShareDB(sentinels.url) as db:
        use(db)
        queue = WorkQueue(db, "more")
        queue.put("task")
        task = queue.get(timeout=10)
        before = sentinels.master()
        eventually(lambda: _is_level(before))
        sentinels.servers[before].kill()
        db["after"] = 1  # waits for who is master by then
        assert sentinels.master() != before
        assert (db["a/b"], db["after"]) == (1, 1)
        again = queue.get(timeout=30)  # what was in hand may have been forgotten, and goes back
        assert (again.value, again.attempt) == ("task", 2)
        again.done("right")
        with pytest.raises(Exception, match="given"):
            task.done("late")


def _is_level(port: int) -> bool:
    about = ask(port, "INFO", "replication")
    return bool(about["master_repl_offset"] == about["slave0"]["offset"])


# -- clusters --------------------------------------------------------------------------------------


@pytest.fixture
def cluster(start: Callable[..., RedisServer]) -> Iterator[dict[int, RedisServer]]:
    """Three nodes with a third of the slots each."""
    if not shutil.which("redis-cli"):
        pytest.skip("there is no redis-cli on PATH to make a cluster")
    ports = free_ports(3)
    nodes = {port: start("--cluster-enabled", "yes", port=port) for port in ports}
    command = ["redis-cli", "--cluster", "create", *(f"{HOST}:{port}" for port in ports), "--cluster-yes"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    for port in ports:
        eventually(lambda port=port: ask(port, "CLUSTER INFO")["cluster_state"] == "ok")
    yield nodes


@only_when_asked
def test_a_store_is_on_one_node_of_a_cluster_whichever_is_named(cluster: dict[int, RedisServer]) -> None:
    for port in cluster:
        with PickleShareDB(f"redis://{HOST}:{port}/0?prefix=one") as db:
            if "n" in db:
                assert db["n"] == 1
            else:
                use(db)
    holding = [node for node in cluster if ask(node, "DBSIZE")]
    assert len(holding) == 1
    prefix = RedisEngine("redis://h/0?prefix=one").server.prefix
    assert all(key.startswith(prefix) for key in ask(holding[0], "KEYS", "*"))


@only_when_asked
def test_of_several_hosts_another_is_asked_when_one_is_away(cluster: dict[int, RedisServer]) -> None:
    ports = list(cluster)
    with PickleShareDB(f"redis://{HOST}:{ports[0]}/0?prefix=one") as db:
        use(db)
    away = next(port for port in ports if not ask(port, "DBSIZE"))
    there = [port for port in ports if port != away]
    cluster[away].kill()
    hosts = ",".join(f"{HOST}:{port}" for port in (away, *there))
    with PickleShareDB(f"redis://{hosts}/0?prefix=one") as db:
        assert db["n"] == 1
