"""Promise: tell what psync keeps in a directory, by the findings on it. Nothing that was found missing is promised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psync.engine.contract.report import NOTE, OK, PROMISE, WRONG, Finding

READ_ONLY = "writing", "file system"
"""Findings that are WRONG where nothing can be changed."""
WAKING = "wake-ups"
APART = "quarantine", WAKING
"""Findings that break no promise while they are WRONG: what was damaged is kept, and a waiter looks by itself."""

AMONG_HOSTS = (
    "on a file system that other hosts or mounts may use: as far as locks reach them, which `--pair` on two of them "
    "tries out, all that the README promises among hosts; a waiter looks again and again instead of being woken"
)


def promise(findings: Iterable[Finding], *, network: bool) -> Finding:
    """`network`: other hosts may work there, too."""
    found = list(findings)
    wrong = list(dict.fromkeys(each.what for each in found if each.state == WRONG and each.what not in APART))
    refused = next((each for each in found if each.what in READ_ONLY and each.state == WRONG), None)
    if refused is not None:
        some = ", and not all of it" if "reading" in wrong else ""
        says = f"reading only{some}: nothing can be changed here, and a waiter looks every 50 ms"
        return Finding(PROMISE, WRONG, says, f"see {refused.what}")
    if wrong:
        says = f"not all that the README promises, before this is put right: {', '.join(wrong)}"
        return Finding(PROMISE, NOTE, says)
    if network:
        return Finding(PROMISE, NOTE, AMONG_HOSTS)
    if any(each.what == WAKING and each.state == OK for each in found):
        return Finding(PROMISE, OK, "all that the README promises: atomic, safe from kill -9, woken by the kernel")
    says = "atomic and safe from kill -9, as the README promises; but nothing wakes waiters: a waiter looks every 50 ms"
    return Finding(PROMISE, NOTE, says)


def with_promise(findings: Iterator[Finding], *, network: bool) -> Iterator[Finding]:
    """Yield all `findings`, then the promise that is made of them."""
    found = []
    for finding in findings:
        found.append(finding)
        yield finding
    yield promise(found, network=network)
