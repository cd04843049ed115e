"""Server info: reads, when a store is opened, the server's settings, and tells whether psync can rely on it.

A managed server may forbid ``INFO`` and ``CONFIG GET``: then the answer is "unknown", which is a warning, not an error.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from psync.engine.contract.values import Durability
from psync.errors import StoreFailed

OLDEST_VERSION = (6, 0)
"""The oldest version of Redis with all commands that psync uses; Valkey began with 7.2."""

Persistence = Literal["always", "everysec", "no fsync", "snapshots", "none", "unknown"]
SURVIVES: dict[Persistence, str] = {
    "always": "keeps all that it answered, through its death and a power cut (appendonly yes, appendfsync always)",
    "everysec": "may forget the last second or two when it dies or the power fails (appendfsync everysec)",
    "no fsync": "may forget what it did lately, half a minute perhaps, when the power fails (appendfsync no)",
    "snapshots": "forgets all since its last snapshot when it dies (appendonly no)",
    "none": "forgets everything when it dies or is restarted (appendonly no, no snapshots)",
    "unknown": "does not tell whether it keeps anything when it dies (CONFIG GET or INFO is forbidden)",
}


class ServerInfo(NamedTuple):
    """The settings of a server. None and "unknown" stand for settings that it does not tell."""

    version: str | None
    run: str | None
    """A random number of the server's process: another one after a restart, and for another server."""
    limited: bool | None
    """Whether there is a limit to its memory, at which its policy matters."""
    policy: str | None
    persistence: Persistence

    @property
    def survives(self) -> str:
        """Describe the server's persistence, as a text that follows its name."""
        return SURVIVES[self.persistence]

    @property
    def is_old(self) -> bool:
        return self.version is not None and _numbers(self.version) < OLDEST_VERSION

    def check(self, place: str) -> None:
        """Raises `StoreFailed` with the remedy where psync's promises can't be kept at all."""
        if self.is_old:
            raise StoreFailed(
                f"the server of {place} is of version {self.version}, and psync needs "
                f"{'.'.join(map(str, OLDEST_VERSION))} or later. Nothing was changed",
                key=None,
            )
        if self.limited and self.policy not in (None, "noeviction"):
            raise StoreFailed(
                f"the server of {place} removes keys when its memory is full (maxmemory-policy {self.policy}): values, "
                "results and locks would be lost without a word. Nothing was changed. Remedy: CONFIG SET "
                "maxmemory-policy noeviction, and the same in its configuration file; or, if nothing else may fill it, "
                "no limit: CONFIG SET maxmemory 0",
                key=None,
            )

    def check_level(self, durability: Durability, place: str) -> None:
        """Raises `ValueError` if the server does not keep what `durability` promises."""
        if durability != "process" and self.persistence != "always":
            raise ValueError(
                f"durability={durability!r} can't be had from the server of {place}, which {self.survives}. Remedy: "
                "CONFIG SET appendonly yes, CONFIG SET appendfsync always, and the same in its configuration file; or "
                "durability='process'"
            )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def told(information: dict[str, str] | None, configured: dict[str, str]) -> ServerInfo:
    """Make it from the answers to INFO (None if forbidden) and to CONFIG GET (empty if forbidden)."""
    about = information or {}
    limit, policy = about.get("maxmemory"), about.get("maxmemory_policy")
    appends = about.get("aof_enabled")
    persistence: Persistence = "unknown"
    if appends == "1":
        by_word: dict[str | None, Persistence] = {"always": "always", "everysec": "everysec", "no": "no fsync"}
        persistence = by_word.get(configured.get("appendfsync"), "unknown")
    elif appends == "0" and "save" in configured:
        persistence = "snapshots" if configured["save"] else "none"
    return ServerInfo(
        about.get("redis_version"), about.get("run_id"), None if limit is None else limit != "0", policy, persistence
    )


def fields(answer: bytes) -> dict[str, str]:
    """Parse the lines of an answer to INFO."""
    pairs = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def settings(answer: list[Any]) -> dict[str, str]:
    """Parse the pairs of an answer to CONFIG GET."""
    words = [word.decode(errors="replace") for word in answer]
    return dict(zip(words[::2], words[1::2], strict=False))
