"""The type of a codec: the table of functions by which one store turns values into bytes, and bytes into values.

Beside it, what stands in place of an item that can't be loaded here, so that it is carried along as it is.
"""

# annotations are evaluated here: `NamedTuple` would compile each one that is a string, at every start
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

PASSING = (MemoryError, KeyboardInterrupt, GeneratorExit)
"""The exceptions of loading a value that say nothing of the value."""


def fails_again(load: Callable[[Any], object], data: Any, error: BaseException) -> bool:
    """Tell whether ``load(data)``, which raised `error`, raises the like once more.

    If not, the error is not of what is loaded: a signal's handler raised it, for one.
    """
    if isinstance(error, PASSING):
        return False
    try:
        load(data)
    except PASSING:
        raise
    except BaseException as again:
        return type(again) is type(error)
    return False


class Unread:
    """The pickle of a value that was not unpickled."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __reduce__(self) -> NoReturn:
        raise TypeError("an unread value is no value: it can't be copied as one")


class UnreadKey:
    """The pickle of a key that can't be unpickled: it equals the same bytes."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UnreadKey) and self.payload == other.payload

    def __hash__(self) -> int:
        return hash(self.payload)


class Items(dict[Any, Any]):
    """Items of which some may be `Unread`: a dict of another type has none of them, so it need not be searched."""

    ranges: Sequence[tuple[Any, int, int]] = ()
    """Of a dict that was just split: the key of each item, and where its bytes begin and end, overwritten ones, too."""


class Failure(NamedTuple):
    """Why a value can't be loaded here."""

    error: BaseException
    module: str | None
    """That of the class or function which is missing, or raised the error; None if that is not known."""
    name: str | None


def _split_nothing(data: bytes, whole: bool) -> Items:
    raise ValueError("there is nothing in it but what every process can read")


def _is_never_well_formed(payload: bytes) -> bool:
    return False


def _find_no_failure(payload: bytes) -> Failure | None:
    return None


class Codec(NamedTuple):
    """The functions of one serializer. `psync.store.codec.codec_of` chooses it for a store."""

    dumps: Callable[[Any], bytes]
    """Serialize a value, as a cell holds it."""
    loads: Callable[[bytes], Any]
    """Deserialize a value. Passes on the errors of unpickling: for damaged bytes one of `damage`."""
    copy: Callable[[Any], Any]
    """Return the value, or a copy of it if it can be changed, so that the caller shares it with nobody."""
    item: Callable[[Any, Any], bytes]
    """Serialize a key and a value: opcodes that set one item of the dict below them on the stack."""
    items: Callable[[dict[Any, Any]], bytes]
    """Serialize all items of a dict, as `item` does one."""
    load_items: Callable[[bytes], dict[Any, Any]]
    """Return the dict that the opcodes of any number of items make of an empty one."""
    pack: Callable[[tuple[Any, ...]], bytes]
    """Serialize a few values as one record of a log."""
    unpack: Callable[[bytes], Any]
    """Return the values of a record that `pack` made, as a sequence."""
    dump_state: Callable[[tuple[Any, ...]], bytes]
    """Serialize a primitive's state for a register: numbers and texts in tuples and dicts, and users' values."""
    load_state: Callable[[bytes], Any]
    """Deserialize a state that `dump_state` made."""
    embed: Callable[[bytes], Any]
    """Return a record that `pack` made as a value, so that it can be a part of another record."""
    extract: Callable[[Any], bytes]
    """Return the record that `embed` was given."""
    damage: tuple[type[Exception], ...]
    """The exceptions by which `loads` reports damaged bytes."""
    objects: bool = True
    """Whether values may be objects of any class, and so calls."""
    untrusted: bool = False
    """Whether an error of `loads` may mean damage although the checksum is right: its writer may not be trusted."""
    split: Callable[[bytes, bool], Items] = _split_nothing
    """Return all items in the opcodes of items, or (True) in one whole pickle of a dict, each value `Unread`, and a key
    that can't be loaded `UnreadKey`. `items` serializes them as they are. Raises ValueError for anything else."""
    is_well_formed: Callable[[bytes], bool] = _is_never_well_formed
    """Tell whether the bytes are laid out like one value: then an error of `loads` may be that of the value's class."""
    diagnose: Callable[[bytes], Failure | None] = _find_no_failure
    """Load a value once more, and return what fails; None if nothing does."""
