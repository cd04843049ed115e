"""Floor 1: the complete store, PickleShare re-made whole.

Here live the mapping (`db`), its hashed categories (`category`), waiting (`waiting`), links (`link`), what may be
a key (`keys`, `glob`) and the one door to pickle (`codec`). It speaks to the engine's verbs only: it knows no
path, no lock and no clock.
"""

from __future__ import annotations

from psync.store.db import PickleShareDB
from psync.store.keys import gethashfile
from psync.store.link import PickleShareLink

__all__ = ["PickleShareDB", "PickleShareLink", "gethashfile"]
