"""What is to be said of a server: what it is, how fast it answers, who may write to it, and what it may forget."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from psync.engine import clock
from psync.engine.contract import Alive
from psync.engine.looks import NOTE, OK, WRONG, Finding, some_of
from psync.engine.redis import scripts
from psync.engine.redis.address import parse
from psync.engine.redis.engine import HIDDEN
from psync.engine.redis.looking import LookingEngine
from psync.errors import StoreFailed

OLDEST = 6
"""The first version that has all that is used."""
SLOW = 0.005
"""Seconds for an answer, above which it is worth a note."""
NEARLY_FULL = 0.9
IMPATIENT = 2.0
"""Seconds for which a server that does not answer is asked again."""
Facts = Mapping[str, str]


def diagnosed(url: str) -> Iterator[Finding]:
    """All of it, for people. Changes nothing."""
    address = parse(url)
    engine = LookingEngine(address._replace(patience=min(address.patience, IMPATIENT)).whole)
    try:
        yield from _of_server(engine)
        yield from _of_store(engine)
    except StoreFailed as error:
        yield Finding("server", WRONG, str(error), "start it, see that it can be reached from here, and who may log in")
    finally:
        engine.close()


def _of_server(engine: LookingEngine) -> Iterator[Finding]:
    facts, settings = _facts(engine), _settings(engine)
    yield version(facts)
    yield _speed(engine)
    yield from access(facts, settings, engine.address.url)
    yield _scripts(engine)
    yield from persistence(facts, settings)
    yield eviction(facts)
    yield memory(facts)
    yield from replication(facts)


def _facts(engine: LookingEngine) -> Facts:
    """What the server tells of itself, by name."""
    lines = engine.server.ask("INFO").decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def _settings(engine: LookingEngine) -> Facts:
    """How it is configured, as far as it may be asked."""
    found: dict[str, str] = {}
    for name in ("appendfsync", "save", "bind", "protected-mode", "requirepass"):
        try:
            answer = engine.server.ask("CONFIG", "GET", name)
        except StoreFailed:  # it does not let us
            continue
        if len(answer) == 2:
            found[name] = answer[1].decode("utf-8", "replace")
    return found


def version(facts: Facts) -> Finding:
    name, number = "Redis", facts.get("redis_version", "")
    if "valkey_version" in facts:
        name, number = "Valkey", facts["valkey_version"]
    says = f"{name} {number}, mode {facts.get('redis_mode', '?')}, up for {facts.get('uptime_in_seconds', '?')} s"
    if not number.partition(".")[0].isdecimal() or int(number.partition(".")[0]) < OLDEST:
        return Finding("server", WRONG, says, f"psync needs version {OLDEST} or later")
    return Finding("server", OK, says)


def _speed(engine: LookingEngine) -> Finding:
    taken = []
    for _ in range(20):
        begun = clock.monotonic()
        engine.server.ask("PING")
        taken.append(clock.monotonic() - begun)
    middle = statistics.median(taken)
    says = f"an answer takes {1e6 * middle:.0f} µs (at most {1e6 * max(taken):.0f} of 20), and a verb is one or two"
    return Finding("latency", NOTE if middle > SLOW else OK, says)


def access(facts: Facts, settings: Facts, url: str) -> Iterator[Finding]:
    """Who may write there can run code in those who read."""
    if url.startswith("unix://"):
        yield Finding("connection", OK, "a socket of this host")
        return
    encrypted = url.startswith("rediss://")
    if encrypted:
        yield Finding("connection", OK, "through TLS")
    else:
        says = "not encrypted: who sees the network sees the values and the password"
        yield Finding("connection", NOTE, says, "use rediss://, or keep the server on this host")
    if "requirepass" not in settings or "bind" not in settings:
        yield Finding("access", NOTE, "the server does not tell who may log in")
        return
    local = all(one.lstrip("-").startswith(("127.", "::1")) for one in settings["bind"].split())
    closed = bool(settings["requirepass"]) or settings.get("protected-mode") == "yes" or (local and settings["bind"])
    if closed:
        yield Finding("access", OK, "with a password" if settings["requirepass"] else "from this host only")
    else:
        says = "everybody who reaches the server can write to it; what is read there runs as you"
        yield Finding("access", WRONG, says, "set requirepass or an ACL, bind it to this host, or seal with a key")


def _scripts(engine: LookingEngine) -> Finding:
    try:
        engine.server.run(scripts.PLACE, b"any")
    except StoreFailed as error:
        return Finding("scripts", WRONG, f"can't be run: {error}", "allow EVAL and EVALSHA")
    return Finding("scripts", OK, "run: each verb happens at one instant")


def persistence(facts: Facts, settings: Facts) -> Iterator[Finding]:
    """What outlives the server."""
    if facts.get("aof_enabled") == "1":
        if facts.get("aof_last_write_status", "ok") != "ok":
            yield Finding("persistence", WRONG, "the server could not write its log of commands", "see to its disk")
        often = settings.get("appendfsync", "?")
        if often == "always":
            yield Finding("persistence", OK, "each command is on its disk before it is answered: nothing is lost")
        elif often == "everysec":
            yield Finding(
                "persistence",
                NOTE,
                "what was answered in the last second is lost with power (nothing, if only the server is killed)",
                "appendfsync always, where that matters",
            )
        else:
            says = f"when commands reach its disk is left to its kernel or not told (appendfsync {often})"
            yield Finding("persistence", NOTE, says, "appendfsync everysec or always")
        return
    if settings.get("save", "") or (facts.get("rdb_last_save_time", "0") != "0" and "save" not in settings):
        says = "only snapshots: what came after the last one is gone when the server ends"
    else:
        says = "none: all is gone when the server ends"
    yield Finding("persistence", NOTE, says, "appendonly yes, unless that is what you want")


def eviction(facts: Facts) -> Finding:
    """What it forgets when its memory is full."""
    policy, limit = facts.get("maxmemory_policy", "?"), int(facts.get("maxmemory", 0))
    if policy == "noeviction":
        return Finding("eviction", OK, "noeviction: when its memory is full, writing raises StoreFull; nothing is lost")
    forgets = "who is alive, so that locks and tasks are given away early" if "volatile" in policy else "values"
    says = f"{policy}: when its memory is full, it forgets {forgets}"
    remedy = "maxmemory-policy noeviction"
    return Finding("eviction", WRONG if limit else NOTE, says if limit else f"{says}; but it has no limit", remedy)


def memory(facts: Facts) -> Finding:
    used, limit = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
    says = f"{used / 1e6:.1f} MB used, {f'of {limit / 1e6:.1f} MB' if limit else 'no limit'}"
    if limit and used > NEARLY_FULL * limit:
        return Finding("memory", WRONG, says, "raise maxmemory, or remove values")
    return Finding("memory", OK, says)


def replication(facts: Facts) -> Iterator[Finding]:
    if facts.get("role") in ("slave", "replica"):
        yield Finding("replication", WRONG, "this is a replica, which can't be written to", "name its primary")
    elif int(facts.get("connected_slaves", 0)):
        says = f"{facts['connected_slaves']} replicas, which are a little behind: a failover may lose the last changes"
        yield Finding("replication", NOTE, says)


def _of_store(engine: LookingEngine) -> Iterator[Finding]:
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
