"""Whatever is killed or stopped, and whenever: all that was acknowledged is there, once, and a sweep leaves nothing."""

from __future__ import annotations

import pytest

from tests.nfs.conftest import Place
from tests.support import SCALE

KILLS = round(6 if SCALE < 2 else 25 * SCALE)
"""On each host, in each case: 3,000 in the long form."""


@pytest.mark.parametrize("hosts", [1, 2], ids=["one host", "two hosts"])
@pytest.mark.parametrize("beside", [True, False], ids=["open", "not open"])
def test_what_was_acknowledged_is_there(place: Place, hosts: int, beside: bool) -> None:
    """`beside`: on each host somebody reads all the time, so that what is replaced is open there."""
    names = ["a", "b"][:hosts]
    driving = [
        client.do("drive", place.path, name, [other for other in names if other != name], KILLS, beside, 1)
        for client, name in zip((place.c1, place.c2), names, strict=False)
    ]
    told = [each.result(60.0 + 10.0 * KILLS) for each in driving]
    print(f"{place.mount}: {hosts * KILLS} kills, {place.c3.do('settle', place.path, told).result(300.0)}")
