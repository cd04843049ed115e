"""Doctor: diagnoses a server: version, latency, access, persistence, eviction, memory, and the state of the store."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from psync.engine.contract.report import NOTE, OK, WRONG, Finding, some_of
from psync.engine.contract.values import Alive
from psync.engine.redis import lua
from psync.engine.redis.read_only import ReadOnlyEngine
from psync.engine.redis.server_info import OLDEST_VERSION, ServerInfo, fields, settings
from psync.engine.redis.store import HIDDEN
from psync.engine.redis.url import parse
from psync.engine.system import clock
from psync.errors import StoreFailed

SLOW_ANSWER_S = 0.005
"""A median answer above this is worth a note."""
NEARLY_FULL_SHARE = 0.9
DOCTOR_PATIENCE_S = 2.0
"""Seconds for which a server that does not answer is tried again."""
Facts = Mapping[str, str]


def diagnosed(url: str) -> Iterator[Finding]:
    """Yield all findings on a server and its store, for people. Changes nothing."""
    address = parse(url)
    engine = ReadOnlyEngine(address._replace(patience=min(address.patience, DOCTOR_PATIENCE_S)).whole)
    try:
        yield from _of_server(engine)
        yield from _of_store(engine)
    except StoreFailed as error:
        yield Finding("server", WRONG, str(error), "start it, see that it can be reached from here, and who may log in")
    finally:
        engine.close()


def _of_server(engine: ReadOnlyEngine) -> Iterator[Finding]:
    speed = _speed(engine)  # this waits until the server answers at all
    info, facts, configured = engine.server.info(), _facts(engine), _configured(engine)
    yield version(info, facts)
    yield speed
    yield from access(configured, engine.address.url)
    yield _scripts(engine)
    yield persistence(info, facts)
    yield eviction(info)
    yield memory(facts)
    yield from replication(facts)


def _facts(engine: ReadOnlyEngine) -> Facts:
    """Return the server's INFO by name; empty if it forbids INFO."""
    with contextlib.suppress(StoreFailed):
        return fields(engine.server.ask("INFO"))
    return {}


def _configured(engine: ReadOnlyEngine) -> Facts:
    """Return the settings for logins and addresses, as far as the server allows the question."""
    found: dict[str, str] = {}
    for name in ("bind", "protected-mode", "requirepass"):
        with contextlib.suppress(StoreFailed):
            found |= settings(engine.server.ask("CONFIG", "GET", name))
    return found


def version(info: ServerInfo, facts: Facts) -> Finding:
    name, number = ("Valkey", facts["valkey_version"]) if "valkey_version" in facts else ("Redis", info.version)
    if number is None:
        return Finding("server", NOTE, "it does not tell what it is (INFO is forbidden)")
    says = f"{name} {number}, mode {facts.get('redis_mode', '?')}, up for {facts.get('uptime_in_seconds', '?')} s"
    if info.is_old:
        return Finding("server", WRONG, says, f"psync needs version {'.'.join(map(str, OLDEST_VERSION))} or later")
    return Finding("server", OK, says)


def _speed(engine: ReadOnlyEngine) -> Finding:
    taken = []
    for _ in range(20):
        begun = clock.monotonic()
        engine.server.ask("PING")
        taken.append(clock.monotonic() - begun)
    middle = statistics.median(taken)
    says = f"an answer takes {1e6 * middle:.0f} µs (at most {1e6 * max(taken):.0f} of 20), and a verb is one or two"
    return Finding("latency", NOTE if middle > SLOW_ANSWER_S else OK, says)


def access(configured: Facts, url: str) -> Iterator[Finding]:
    """Report the users that may write to the server, because a writer can run code in its readers."""
    if url.startswith("unix://"):
        yield Finding("connection", OK, "a socket of this host")
        return
    encrypted = url.startswith("rediss://")
    if encrypted:
        yield Finding("connection", OK, "through TLS")
    else:
        says = "not encrypted: anybody who sees the network sees the values and the password"
        yield Finding("connection", NOTE, says, "use rediss://, or keep the server on this host")
    if "requirepass" not in configured or "bind" not in configured:
        yield Finding("access", NOTE, "the server does not tell who may log in")
        return
    local = all(one.lstrip("-").startswith(("127.", "::1")) for one in configured["bind"].split())
    if configured["requirepass"] or configured.get("protected-mode") == "yes" or (local and configured["bind"]):
        yield Finding("access", OK, "with a password" if configured["requirepass"] else "from this host only")
    else:
        says = "everybody who reaches the server can write to it; values that you read there run as you"
        yield Finding("access", WRONG, says, "set requirepass or an ACL, bind it to this host, or seal with a key")


def _scripts(engine: ReadOnlyEngine) -> Finding:
    try:
        engine.server.run(lua.PLACE, b"any")
    except StoreFailed as error:
        return Finding("scripts", WRONG, f"can't be run: {error}", "allow EVAL and EVALSHA")
    return Finding("scripts", OK, "run: each verb happens at one instant")


def persistence(info: ServerInfo, facts: Facts) -> Finding:
    """Report the data that outlives the server."""
    if facts.get("aof_last_write_status", "ok") != "ok":
        return Finding("persistence", WRONG, "the server could not write its log of commands", "see to its disk")
    if info.persistence == "always":
        return Finding("persistence", OK, f"it {info.survives}")
    remedy = "appendonly yes, appendfsync always: unless that is what you want"
    return Finding("persistence", NOTE, f"it {info.survives}", remedy)


def eviction(info: ServerInfo) -> Finding:
    """Report the keys that it evicts when its memory is full."""
    if info.policy is None:
        return Finding("eviction", NOTE, "it does not tell what it forgets when its memory is full")
    if info.policy == "noeviction":
        return Finding("eviction", OK, "noeviction: when its memory is full, writing raises StoreFull; nothing is lost")
    lives = "volatile" in info.policy
    forgets = "who is alive, so that locks and tasks are given away early" if lives else "values"
    says = f"{info.policy}: when its memory is full, it forgets {forgets}"
    if info.limited:
        return Finding("eviction", WRONG, f"{says}; no store on it is opened", "maxmemory-policy noeviction")
    return Finding("eviction", NOTE, f"{says}; but there is no limit", "maxmemory-policy noeviction")


def memory(facts: Facts) -> Finding:
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    says = f"{used / 1e6:.1f} MB used, {f'of {limit / 1e6:.1f} MB' if limit else 'no limit'}"
    if limit and used > NEARLY_FULL_SHARE * limit:
        return Finding("memory", WRONG, says, "raise maxmemory, or remove values")
    return Finding("memory", OK, says)


def replication(facts: Facts) -> Iterator[Finding]:
    if facts.get("role") in ("slave", "replica"):
        yield Finding("replication", WRONG, "this is a replica, which can't be written to", "name its primary")
    elif int(facts.get("connected_slaves", 0)):
        says = f"{facts['connected_slaves']} replicas, which are a little behind: a failover may lose the last changes"
        yield Finding("replication", NOTE, says)


def _of_store(engine: ReadOnlyEngine) -> Iterator[Finding]:
    lease = engine.address.lease
    says = f"who is not heard of for {lease:g} s counts as dead elsewhere; on its own host it is proven dead at once"
    yield Finding("lease", OK, says)
    if not engine.is_used():
        yield Finding("psync", NOTE, f"nobody has used the prefix {engine.address.prefix!r} yet")
        return
    by_state: dict[Alive, list[Any]] = {state: [] for state in Alive}
    for process in engine.processes():
        by_state[process.alive].append(str(process.identity or f"{process.owner:016x}"))
    living, stale = tuple(by_state[Alive.YES]), tuple(by_state[Alive.NO])
    yield Finding("at work", OK, f"{len(living)} processes{some_of(living)}")
    if stale:
        says = f"{len(stale)} processes ended without leaving{some_of(stale)}"
        yield Finding("stale owners", NOTE, says, "none needed: they count for nothing, and go with their leases")
    quarantine = f"{HIDDEN}/quarantine"
    for name in sorted(engine.entries(quarantine)[0]):
        yield Finding(
            "quarantine", WRONG, f"{name.partition('-')[2]!r} was damaged; its bytes are kept at {quarantine}/{name}",
            "set it again, or restore it from a backup",
        )  # fmt: skip
