"""Tables, bytes and seconds, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_CELL_CHARACTERS = 100
"""A longer cell is cut."""


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table; none if it has no rows. Numbers stand at the right."""
    body = [[_cell(cell) for cell in row] for row in rows]
    if not body:
        return []
    columns = list(zip(head, *body, strict=True))
    right = [
        all(cell.replace(".", "").rstrip("%sKMGB ").isdigit() or cell == "-" for cell in col[1:]) for col in columns
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = [f"{title}:"]
    for row in (head, *body):
        cells = zip(row, widths, right, strict=True)
        line = "  ".join(cell.rjust(width) if number else cell.ljust(width) for cell, width, number in cells)
        lines.append(f"  {line.rstrip()}")
    return [*lines, ""]


def _cell(value: object) -> str:
    text = "".join(char if char.isprintable() else "?" for char in str(value))  # no escape sequences from a name
    return text if len(text) <= MAX_CELL_CHARACTERS else f"{text[: MAX_CELL_CHARACTERS - 3]}..."


def size(count: float) -> str:
    """Bytes."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
