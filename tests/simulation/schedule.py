"""Who goes on, verb by verb, is drawn from a seed: the same seed makes the same history.

Actors are functions of an engine, each an owner of its own. They run in threads, but one at a time: before each verb
(`Turns.step`) and at each wait (`Clock.wait`) the schedule says who goes on. Time stands still until all wait,
and then jumps to the first moment that somebody waits for. If there is none, or it lies behind `limit`, that is
`Stuck`: so a waiter that nobody woke is found, and not saved by its own looking now and then.

Even seeds draw evenly among those who can go on. Odd seeds give each actor a priority, run the highest that can go on,
and at a few turns let it fall below all others: Burckhardt, Kothari, Musuvathi and Nagarakatte, "A Randomized
Scheduler with Probabilistic Guarantees of Finding Bugs" (ASPLOS 2010).
"""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable

from psync.engine import MemoryEngine
from psync.engine.memory import Died
from tests.simulation.actor import Actor, Over, SteppedEngine, Stuck, Turn
from tests.simulation.pool import Pool

MOST_TURNS = 5000
"""A history that is longer goes round in circles."""
MOST_FALLS = 3
"""How often, at most, a priority falls in one schedule: a bug of depth d needs d - 1 falls."""
FOUND_DEAD = 1.0
"""Virtual seconds after a death in which everybody has found out."""
TOLD = 300
"""Lines of a history that a failing test shows."""
SPIN = 1e-6
"""Virtual seconds for which who waits looks again before it sleeps, under every other pair of seeds."""
STOPS = (0.01, 0.3, 2.0, 30.0)
"""Virtual seconds for which somebody may be stopped."""


class Schedule:
    """One history, of which `seed` says everything.

    `kills`, `stops`: how many processes at most are killed, or stopped for a while (SIGSTOP); the seed says how many,
    which and when. `limit`: virtual seconds in which all have to be done; a death makes it up to 1 s more, a stop
    its own length. `pace`: virtual seconds that a verb takes. `turns`: about how many there will be: kills, stops
    and falls are drawn from that range.
    """

    def __init__(
        self,
        seed: int,
        pool: Pool,
        *,
        kills: int = 0,
        stops: int = 0,
        limit: float = 0.0,
        pace: float = 0.0,
        turns: int = 50,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.actors: list[Actor] = []
        self.time = 0.0
        self.limit = limit
        self._pool = pool
        self._pace = pace
        self._turn = Turn(self._wake)
        self.engine: MemoryEngine = SteppedEngine(self, self._turn, SPIN if seed & 2 else 0.0)
        """For what comes before and after the actors, without turns."""
        self._trace: list[tuple[float, Actor | None, str, str]] = []
        self._running: Actor | None = None
        self._failure: BaseException | None = None
        self._stood: list[str] = []
        """How each actor stood at the failure."""
        self._over = threading.Lock()
        self._turns = 0
        self._by_priority = bool(seed % 2)
        self._events: dict[int, Callable[[Actor], None]] = {}
        """What will happen to actors, by turn."""
        falls = MOST_FALLS if self._by_priority else 0
        for event, most in ((self._fall, falls), (self._stop, stops), (self._kill, kills)):
            for _ in range(self.random.randint(0, most)):
                self._events[self.random.randint(1, turns)] = event

    def __repr__(self) -> str:
        return f"<Schedule {self.seed} at {self.time:.2f} s: {', '.join(map(repr, self.actors))}>"

    def trace(self) -> list[str]:
        """Everything that happened so far: virtual second, actor, what it did."""
        return [
            f"{when:8.2f}  {actor.name if actor else '':<12}{verb} {name}" for when, actor, verb, name in self._trace
        ]

    def story(self) -> str:
        """What happened under which seed, to be read when it went wrong; of a long history the end."""
        lines = self.trace()
        left_out = [f"    ... {len(lines) - TOLD} lines before"] if len(lines) > TOLD else []
        return "\n".join([f"seed {self.seed}:", *left_out, *lines[-TOLD:], *self._stood])

    # -- who takes part ------------------------------------------------------------------------------

    def actor(
        self,
        job: Callable[[MemoryEngine], object],
        name: str = "",
        *,
        mortal: bool = True,
        stoppable: bool | None = None,
        beside: Actor | None = None,
    ) -> Actor:
        """`job` will be called with the engine of a process of its own; `beside` another, in a thread of that one's."""
        engine = self.engine.as_owner() if beside is None else beside.engine
        actor = Actor(name or f"actor {len(self.actors)}", job, engine)
        actor.mortal = mortal
        actor.stoppable = mortal if stoppable is None else stoppable
        self.actors.append(actor)
        return actor

    def lives(self, engine: MemoryEngine) -> bool:
        """Whether the process with that engine has not been killed."""
        return not any(actor.dead for actor in self.actors if actor.engine is engine)

    def run(self) -> None:
        """Let all actors go on until they have ended. Raises the first error that one of them raised, or `Stuck`."""
        self.random.shuffle(order := list(range(len(self.actors))))
        for actor, worker, priority in zip(self.actors, self._pool.workers(len(order)), order, strict=True):
            actor.priority = 1.0 + priority
            actor.baton = worker.baton
            worker.job = lambda actor=actor: self._perform(actor)
        self._over.acquire()
        self._pass_on()
        self._over.acquire()
        self._over.release()
        if self._failure is not None:
            for actor in self.actors:
                actor.engine.turns.number = 0  # a dead engine makes no verb, not even for the repr of what is on it
            raise self._failure

    def _perform(self, actor: Actor) -> None:
        try:
            if self._failure is None and not actor.dead:
                actor.job(actor.engine)
        except (Died, Over):
            pass
        except BaseException as error:
            if not actor.dead:  # else it is what Python does after a death that in truth ends everything
                self._fail(error)
        actor.ended = True
        self._pass_on()

    def _pass_on(self) -> None:
        """Somebody else goes on, or all is over."""
        self._running = self._choose()
        if self._running is None:
            self._over.release()
        else:
            self._running.baton.release()

    # -- what the actor that runs comes to -------------------------------------------------------------

    def step(self, verb: str, name: str) -> None:
        """A verb is about to be made. Inside of another one that keeps everybody out, nobody else can go on."""
        actor = self._running
        if actor is None or (self._turn.depth and self._failure is None):
            return
        actor.pending = verb, name
        self._let_go(actor)
        if actor.dead:
            raise Died(f"{actor.name} was killed")
        self._trace.append((self.time, actor, verb, name))

    def now(self) -> float:
        return self.time

    def wait(self, condition: object, until: float | None) -> None:
        """Sleep until something has changed, or `until` has come."""
        actor = self._running
        assert actor is not None, "nobody would ever end this wait: let an actor do it"
        actor.until = math.inf if until is None else until
        actor.sleeping = True
        depth, self._turn.depth = self._turn.depth, 0
        try:
            self._let_go(actor)
        finally:
            actor.sleeping = False
            self._turn.depth = depth
        self._trace.append((self.time, actor, "woke in", actor.pending[0]))

    def awaits(self, ready: Callable[[], bool]) -> None:
        if self._running is not None:
            self._running.ready = ready

    def pass_time(self, seconds: float) -> None:
        """Who runs has spun for so long; nobody needs to hurry for that."""
        self.time += seconds
        self.limit += seconds

    def _wake(self) -> None:
        for actor in self.actors:
            actor.woken = actor.sleeping

    def _let_go(self, actor: Actor) -> None:
        """Return when it is this actor's turn."""
        if self._failure is None:
            chosen = self._choose()
            if chosen is not actor and chosen is not None:
                self._running = chosen
                chosen.baton.release()
                actor.baton.acquire()
        if self._failure is not None:
            raise Over

    # -- who goes on -----------------------------------------------------------------------------------

    def _choose(self) -> Actor | None:
        """Who goes on; None when all have ended. After a failure all go on, one by one, only to end."""
        while self._failure is None:
            ready = [actor for actor in self.actors if actor.can_go(self.time)]
            if not ready:
                if all(actor.ended for actor in self.actors):
                    return None
                self._jump()
                continue
            self._turns += 1
            self.time += self._pace
            if self._turns > MOST_TURNS:
                self._fail(Stuck(f"still not done after {MOST_TURNS} turns"))
            chosen = self._pick(ready)
            event = self._events.pop(self._turns, None)
            if event is None:
                return chosen
            event(chosen)
        return next((actor for actor in self.actors if not actor.ended), None)

    def _pick(self, ready: list[Actor]) -> Actor:
        if self._by_priority:
            return max(ready, key=lambda actor: actor.priority)
        return ready[int(self.random.random() * len(ready))]

    def _jump(self) -> None:
        """All wait: it is the next moment that somebody waits for."""
        moment = min(actor.goes_on_at for actor in self.actors if not actor.ended)
        if moment > self.limit:
            when = "ever" if moment == math.inf else f"before {moment:g} s, and all should be done by {self.limit:g} s"
            self._fail(Stuck(f"nobody can go on {when}"))
        else:
            self.time = moment
            self._trace.append((moment, None, "", "time passes"))

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
            self._stood = [repr(actor) for actor in self.actors]

    # -- what happens to actors ------------------------------------------------------------------------

    def _fall(self, actor: Actor) -> None:
        """The one that would go on has the lowest priority from now on."""
        actor.priority = -float(self._turns)

    def _kill(self, actor: Actor) -> None:
        threads = self._one_process([actor for actor in self.actors if actor.mortal])
        for thread in threads:
            thread.dead = True
            self._trace.append((self.time, thread, "is killed at", thread.pending[0]))
        if threads:
            threads[0].engine.die()
            all_go_on = max(self.time, *(actor.stopped for actor in self.actors))
            self.limit = max(self.limit, all_go_on + FOUND_DEAD)

    def _stop(self, actor: Actor) -> None:
        seconds = self.random.choice(STOPS)
        for thread in self._one_process([actor for actor in self.actors if actor.stoppable]):
            thread.stopped = self.time + seconds
            self._trace.append((self.time, thread, f"is stopped for {seconds:g} s at", thread.pending[0]))
        self.limit += seconds

    def _one_process(self, actors: list[Actor]) -> list[Actor]:
        """All threads of a process in which one of `actors` runs; none if none does."""
        running = [actor for actor in actors if not actor.ended and not actor.dead]
        if not running:
            return []
        engine = self.random.choice(running).engine
        return [actor for actor in self.actors if actor.engine is engine]
