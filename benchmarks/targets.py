"""What is wanted of psync: for each question, beside whom, and how much."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """One wish about one figure: better than a peer, or not above another figure of psync's, or not above a number."""

    question: str
    figure: str
    peer: str | None = None
    better: float = 0.0
    """psync has to be at least so many times as good as `peer`."""
    base: str | None = None
    """Another figure of psync's: the two are divided, and the result is at most `most`."""
    most: float = 0.0
    place: str | None = None
    """Only on this place; None: wherever it was measured."""

    @property
    def wanted(self) -> str:
        if self.peer:
            return f"at least {self.better:.3g} x as good as {self.peer}"
        if self.base:
            return f"at most {self.most:.3g} x the {self.base}"
        return f"at most {self.most:.4g}"


def beats(question: str, figure: str, peer: str, times: float, place: str | None = None) -> Goal:
    return Goal(question, figure, peer=peer, better=times, place=place)


def stays(question: str, figure: str, base: str, times: float) -> Goal:
    return Goal(question, figure, base=base, most=times)


def within(question: str, figure: str, most: float) -> Goal:
    return Goal(question, figure, most=most)


FLOWS = ("1 producer, 1 consumer", "1 producer, 4 consumers")
FLOW_PEERS = (("multiprocessing", 0.9), ("huey", 4), ("diskcache", 7), ("redis", 3.5))
ROUNDS = ("round of 4", "round of 8", "round of 16")
ROUND_PEERS = (("multiprocessing", 0.6), ("redis", 0.15), ("tcpstore", 0.35))
CURVES = ("new key", "overwrite", "get", "hset", "hget", "post", "read", "put, get and done")

GOALS = (
    beats("store", "overwrite 100 B", "pickleshare", 3, "tmpfs"),
    beats("store", "overwrite 100 B", "pickleshare", 7, "ext4"),
    beats("store", "overwrite 100 B", "diskcache", 4),
    beats("store", "new key 100 B", "pickleshare", 1),
    beats("store", "fresh get 100 B", "pickleshare", 1.6),
    beats("store", "unchanged get 100 B", "pickleshare", 2),
    beats("store", "unchanged get 100 B", "diskcache", 2.3),
    beats("store", "1 MB set", "pickleshare", 5),
    beats("store", "1 MB get", "pickleshare", 4.5),
    beats("store", "keys() at 10k", "pickleshare", 12),
    beats("store", "keys() at 100k", "pickleshare", 12),
    beats("store", "glob in one of 100 folders", "pickleshare", 10),
    within("store", "clear() of 10k keys", 1000),
    beats("store", "4 processes, 80 % reads", "pickleshare", 2),
    within("store", "errors of 4 processes", 0),
    within("store", "lost counts", 0),
    beats("store", "modify of one key by 4 processes", "diskcache", 1.3),
    beats("store", "modify of one key by 4 processes", "redis", 1.3),
    beats("category", "hset at 10k items", "pickleshare", 15),
    beats("category", "hset at 100k items", "pickleshare", 50),
    stays("category", "hset at 100k items", "hset at 1k items", 1.3),
    beats("category", "hget at 100k, fresh handle", "pickleshare", 1),
    beats("category", "hdict of 100k after hcompress", "pickleshare", 1 / 0.6),
    beats("category", "hdict of 100k x 100 B after hcompress", "pickleshare", 1 / 0.6),
    beats("wake", "wake, median", "multiprocessing", 1 / 1.5, "tmpfs"),
    beats("wake", "wake, median", "redis", 2),
    beats("wake", "wake, median", "pickleshare", 1000),
    beats("wake", "set to wake, median", "multiprocessing", 1 / 1.5),
    within("wake", "idle CPU", 0.2),
    stays("wake", "write beside 16 waiters", "write alone", 2),
    *(beats("queues", flow, peer, times) for flow in FLOWS for peer, times in FLOW_PEERS),
    *(beats("queues", f"{flow}, in a loop", "multiprocessing", 2) for flow in FLOWS),
    *(beats("barrier", round_, peer, 1 / times) for round_ in ROUNDS for peer, times in ROUND_PEERS),
    *(beats("fan_out", f"a call submitted, {workers} workers", "processpool", 5) for workers in (2, 4)),
    *(beats("fan_out", f"a call mapped, {workers} workers", "multiprocessing", 1 / 0.6) for workers in (2, 4)),
    *(beats("fan_out", f"a call submitted, {workers} workers", "dask", 40) for workers in (2, 4)),
    *(beats("fan_out", f"efficiency of {workers} workers, 10 ms calls", "processpool", 1) for workers in (2, 4)),
    beats("fan_out", "start, and a first answer", "processpool", 1 / 1.5),
    beats("locks", "lock pair", "filelock", 35),
    beats("locks", "lock pair", "fasteners", 9),
    beats("locks", "lock pair", "diskcache", 25),
    beats("locks", "lock by 4 processes", "filelock", 4),
    beats("locks", "lock by 4 processes", "multiprocessing", 0.8),
    within("locks", "not alone", 0),
    beats("locks", "semaphore pair", "diskcache", 5),
    beats("locks", "semaphore pair", "redis", 5),
    *(stays("growth", f"{curve} at 1M", f"{curve} at 1k", 1.5) for curve in CURVES),
    stays("growth", "round of 2 after 100k", "round of 2 after 1k", 1.5),
    stays("growth", "memory of a worker after 1M", "memory of a worker after 10k", 1.5),
    within("growth", "first get at 1M", 1),
    beats("startup", "import", "pickleshare", 1 / 1.2),
    beats("startup", "import, store in hand", "pickleshare", 1 / 1.2),
)


def peers_wanted(question: str, figures: set[str]) -> set[str]:
    """Who some goal compares psync with in these figures."""
    return {goal.peer for goal in GOALS if goal.peer and goal.question == question and goal.figure in figures}
