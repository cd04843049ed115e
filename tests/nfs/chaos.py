"""Random operations of every shape, killed and stopped at random moments, beside an oracle of what was acknowledged.

On each host a driver forks one victim after another. A victim says over a pipe what it is about to do, and when it is
done; after its end a new process must find all that was acknowledged, and the operation under way done or not. Beside
it a bystander keeps reading, so that its host has the files open that the victim replaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from queue import Empty
from typing import Any

from psync import Counter, Mailbox, PickleShareDB, WaitTimeout, WorkQueue

VALUES, ITEMS, MESSAGES = 2, 10, 5
"""Of each host. So few values that a reader mostly has the one open that is being replaced."""
SIZES = (10, 5000, 8000, 20_000)
"""Bytes: up to a page a value is changed in place, beyond it is replaced."""
READERS = 3
"""Bystanders of a host."""
REPLACING = ["next", "replaces a file"]
"""A victim's word: a moment later it is in the middle of that, and a kill does the most harm."""
State = dict[str, str | None]
"""What is at each key: a token, or None for nothing."""


class Wrong(AssertionError):
    """Something was lost, doubled, or seen that never was."""


def value_of(token: str) -> tuple[str, str]:
    return token, "x" * SIZES[int(token.rpartition(".")[2]) % len(SIZES)]


def token_of(value: Any) -> str | None:
    if value is None:
        return None
    token, rest = value
    if rest != value_of(token)[1]:
        raise Wrong(f"{token} has the content of something else")
    return str(token)


class Things:
    """What the hosts work on together; each host has keys of its own in all of it."""

    def __init__(self, root: str, who: str) -> None:
        self.db = PickleShareDB(root)
        self.who = who
        self.box = Mailbox(self.db, "box")
        self.counter = Counter(self.db, "count")
        self.queue = WorkQueue(self.db, "jobs", max_attempts=100_000)

    def seen(self) -> State:
        """All that is there of this host's own."""
        state: State = {}
        for number in range(VALUES):
            state[f"v{number}"] = token_of(self.db.get(f"{self.who}/{number}"))
        items = self.db.hdict("cat")
        for number in range(ITEMS):
            state[f"i{number}"] = token_of(items.get(f"{self.who}-{number}"))
        for number in range(MESSAGES):
            state[f"m{number}"] = None
            with contextlib.suppress(WaitTimeout):
                state[f"m{number}"] = token_of(self.box.get(f"{self.who}-{number}", timeout=0))
        state["steady"] = token_of(self.db.get(f"steady/{self.who}"))
        return state


class Victim:
    """Does one thing after another, and says so first and afterwards."""

    def __init__(self, things: Things, seed: str, say: Callable[[list[Any]], object]) -> None:
        self.things, self.seed, self._say = things, seed, say
        self.random = random.Random(seed)
        self._count = 0

    def go_on(self) -> None:
        often = [self.value, self.fold] * 4  # these replace files
        kinds = [*often, self.item, self.item, self.message, self.count, self.work]
        while True:
            self.random.choice(kinds)()

    @contextlib.contextmanager
    def doing(self, *what: Any) -> Iterator[None]:
        self._say(["begin", *what])
        yield
        self._say(["end", *what])

    def token(self) -> str:
        self._count += 1
        return f"{self.seed}.{self._count}"

    def value(self) -> None:
        self._say(REPLACING)
        db, number, token = self.things.db, self.random.randrange(VALUES), self.token()
        key = f"{self.things.who}/{number}"
        match self.random.randrange(5):
            case 0:
                with self.doing("set", {f"v{number}": None}):
                    db.pop(key, None)
            case 1:
                with self.doing("set", {"steady": token}):
                    db[f"steady/{self.things.who}"] = value_of(token)
            case 2:
                with self.doing("set", {f"v{number}": token}):
                    db.modify(key, lambda old: value_of(token), default=None)
            case _:
                with self.doing("set", {f"v{number}": token}):
                    db[key] = value_of(token)

    def item(self) -> None:
        db, number, token = self.things.db, self.random.randrange(ITEMS), self.token()
        key = f"{self.things.who}-{number}"
        match self.random.randrange(4):
            case 0:
                with self.doing("set", {f"i{number}": None}):
                    db.hpop("cat", key, None)
            case 1:
                several = {number: self.token() for number in self.random.sample(range(ITEMS), 3)}
                with self.doing("set", {f"i{number}": token for number, token in several.items()}):
                    db.hupdate("cat", {f"{self.things.who}-{n}": value_of(token) for n, token in several.items()})
            case _:
                with self.doing("set", {f"i{number}": token}):
                    db.hset("cat", key, value_of(token))

    def fold(self) -> None:
        self._say(REPLACING)
        with self.doing("set", {}):
            if self.random.random() < 0.7:
                self.things.db.hcompress("cat")
            else:
                self.things.box.compact()

    def message(self) -> None:
        box, number, token = self.things.box, self.random.randrange(MESSAGES), self.token()
        address = f"{self.things.who}-{number}"
        if address in box:
            with self.doing("set", {f"m{number}": None}):
                box.take(address)
        else:
            with self.doing("set", {f"m{number}": token}):
                if not box.post(address, value_of(token)):
                    raise Wrong(f"a message was at {address} when there was none")

    def count(self) -> None:
        if self.random.random() < 0.5:
            with self.doing("add", "counter"):
                self.things.counter.add()
        else:
            with self.doing("add", "value"):
                long = self.random.choice(SIZES)
                self.things.db.modify("total", lambda old: (old[0] + 1, "x" * long), default=(0, ""))

    def work(self) -> None:
        queue, token = self.things.queue, self.token()
        if self.random.random() < 0.6:
            with self.doing("put", token):
                queue.put(token, id=token)
            return
        with contextlib.suppress(Empty):
            task = queue.get(block=False)
            with self.doing("done", task.id, token):
                task.done(value_of(token))


class Oracle:
    """What was acknowledged on one host, and what may have happened besides."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.pending: State = {}
        self.sure = {"counter": 0, "value": 0}
        self.doubtful = {"counter": 0, "value": 0}
        self.put: list[str] = []
        self.results: dict[str, str] = {}

    def hear(self, said: list[list[Any]]) -> None:
        """All that one victim said."""
        open_adds = {"counter": 0, "value": 0}
        for when, kind, *what in said:
            done = when == "end"
            match kind:
                case "set":
                    self.pending = {} if done else what[0]
                    self.state |= what[0] if done else {}
                case "add":
                    open_adds[what[0]] += -1 if done else 1
                    self.sure[what[0]] += done
                case "put" if done:
                    self.put.append(what[0])
                case "done" if done:
                    self.results[what[0]] = what[1]
        for name, count in open_adds.items():
            self.doubtful[name] += count

    def check(self, seen: State, where: str) -> None:
        """The operation under way was done whole, or not at all."""
        if seen not in (self.state, {**self.state, **self.pending}):
            wrong = {key: (found, self.state[key]) for key, found in seen.items() if found != self.state[key]}
            raise Wrong(f"{where}: (found, acknowledged) {wrong}; under way was {self.pending}")
        self.state, self.pending = dict(seen), {}


def drive(root: str, who: str, others: list[str], kills: int, beside: bool, seed: int) -> dict[str, Any]:
    """Kill so many victims; what was acknowledged in the end."""
    chance = random.Random(f"{who}{seed}")
    oracle = Oracle(in_child(lambda: begin(root, who)))
    readers = [started(lambda say: stand_by(root, [who, *others])) for _ in range(READERS if beside else 0)]
    try:
        for number in range(kills):
            victim = started(lambda say, name=f"{who}{seed}-{number}": Victim(Things(root, who), name, say).go_on())
            victim.wait_for_a_word()
            time.sleep(0.2 * chance.random())
            victim.wait_for(REPLACING)
            time.sleep(0.03 * chance.random())
            if chance.random() < 0.2:
                os.kill(victim.pid, signal.SIGSTOP)
                time.sleep(0.2 * chance.random())
                if chance.random() < 0.5:
                    os.kill(victim.pid, signal.SIGCONT)
                    time.sleep(0.1 * chance.random())
            said = victim.ended()
            where = f"{who}, kill {number}, after {said[-1:]}"
            oracle.hear(said)
            oracle.check(in_child(lambda: Things(root, who).seen()), where)
            if any(reader.is_over() for reader in readers):
                break  # something went wrong there
    finally:
        for reader in readers:
            reader.ended()
    return {"sure": oracle.sure, "doubtful": oracle.doubtful, "put": oracle.put, "results": oracle.results}


def begin(root: str, who: str) -> State:
    things = Things(root, who)
    things.db[f"steady/{who}"] = value_of("0.0")
    return things.seen()


def stand_by(root: str, all_hosts: list[str]) -> None:
    """Have everything open now and then; what is replaced, and never removed, is there at every look."""
    things = [Things(root, who) for who in all_hosts]
    begun = set()
    while True:
        for number in range(20):
            for each in things:
                token_of(each.db.get(f"{each.who}/{number % VALUES}"))
        for each in things:
            if each.seen()["steady"] is not None:
                begun.add(each.who)
            elif each.who in begun:
                raise Wrong(f"a value that is never removed was not there: steady/{each.who}")


def settle(root: str, told: list[dict[str, Any]]) -> dict[str, int]:
    """At the end, on one host: nothing is missing from what the hosts did together, nothing was done twice, and a sweep
    leaves nothing behind."""
    things = Things(root, "nobody")
    counted = {"counter": things.counter.value, "value": things.db.get("total", (0, ""))[0]}
    for name, found in counted.items():
        sure = sum(each["sure"][name] for each in told)
        doubtful = sum(each["doubtful"][name] for each in told)
        if not sure <= found <= sure + doubtful:
            raise Wrong(f"{name}: {found}, where {sure} were acknowledged and {doubtful} more may have been")
    for task in things.queue:  # what the dead had begun comes back
        task.done(value_of("0.0"))
    things.queue.join(timeout=30)
    results = {id: token_of(value) for id, value in things.queue.results.collect(timeout=1.0)}
    for each in told:
        for id in each["put"]:
            if id not in results:
                raise Wrong(f"task {id} was put, and has no result")
        for id, token in each["results"].items():
            if results.get(id) != token:
                raise Wrong(f"task {id} was answered by {token}, and the result is {results.get(id)}")
    things.db.sweep()
    unfinished = "/.psync-n", "/.psync/tmp/", "/.psync/pending/"
    litter = [path for path in _files(root) if any(part in path for part in unfinished)]
    if litter:
        raise Wrong(f"left behind a sweep: {litter}")
    return {"counted": sum(counted.values()), "tasks": len(results)}


def _files(root: str) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        yield from (f"{folder}/{name}" for name in names)


# -- processes ---------------------------------------------------------------------------------------


class started:
    """A forked child that runs ``act(say)``; what it says is heard when it is over."""

    def __init__(self, act: Callable[[Callable[[Any], object]], object]) -> None:
        self._pipe, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._pipe)

            def say(what: Any) -> None:
                os.write(write, json.dumps(what).encode() + b"\n")

            try:
                act(say)
            except BaseException:
                say(["failed", traceback.format_exc()])
            os._exit(0)
        os.close(write)
        self._heard = b""

    def is_over(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait_for_a_word(self) -> None:
        select.select([self._pipe], [], [])

    def wait_for(self, word: Any) -> None:
        """Until it says this again, or nothing more."""
        line = json.dumps(word).encode() + b"\n"
        heard = len(self._heard)
        while line not in self._heard[heard:] and (data := os.read(self._pipe, 65536)):
            self._heard += data

    def ended(self, how: int = signal.SIGKILL) -> list[Any]:
        """Kill it, and all that it said. Raises `Wrong` if something went wrong there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, how)
        os.waitpid(self.pid, 0)
        with open(self._pipe, "rb") as pipe:
            said = [json.loads(line) for line in (self._heard + pipe.read()).split(b"\n") if line.endswith(b"]")]
        if said and said[-1][0] == "failed":
            raise Wrong(said[-1][1])
        return said


def in_child(look: Callable[[], Any]) -> Any:
    """What `look` returns in a new process."""
    child = started(lambda say: say(["found", look()]))
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child.ended()[-1][1]
