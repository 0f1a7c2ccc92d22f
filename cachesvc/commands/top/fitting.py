"""Fits the verdict and the tables into a terminal's columns and lines.

Too few columns: a table loses the columns that it can spare; then its widest texts are cut in the
middle, where long names differ least. Too few lines: the verdict has half of them at most, and each
table as many of the rest as its turn leaves, in the order of the tables. A table that is cut shows
the rows that are wrong, and says how many it has; the last line says what is left out.

This is the only module that knows Rich's widths.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

_WORDS = ("state", "of", "at", "what", "who", "region", "through")
"""The columns of words; the others are numbers, and stand to the right."""
_GAP = 2
_NARROWEST = 6
_FAINT = "dim"
_LEAST_ROWS = 2
"""The rows that each table is given before any has more."""

Cell = str | Text


class Row(NamedTuple):
    cells: Sequence[Cell]
    is_bad: bool
    """True if the row stays when others have no room."""


class Sheet:
    """A table before it is known how much room there is."""

    def __init__(self, *columns: str, spare: Sequence[str] = ()) -> None:
        """`spare`: the columns that are left out where there is no room, the first one first."""
        self._columns = columns
        self._spare = spare
        self.rows: list[Row] = []

    def __repr__(self) -> str:
        return f"<Sheet {self._columns[0]} [{len(self.rows)}]>"

    def add_row(self, *cells: Cell, is_bad: bool = False) -> None:
        self.rows.append(Row(cells, is_bad))

    def drawn(self, width: int, most_rows: int) -> Table:
        """Returns the table, at most `width` columns wide, and with at most `most_rows` rows."""
        rows, columns = self.rows, list(self._columns)
        if len(rows) > most_rows:
            rows = sorted(rows, key=lambda row: not row.is_bad)[:most_rows]
            columns[0] = f"{columns[0]} ({most_rows} of {len(self.rows)})"
        wanted = {
            name: max(cell_len(shown), *(cell_len(str(one)) for one in _column(rows, place)))
            for place, (name, shown) in enumerate(zip(self._columns, columns, strict=True))
        }
        for name in self._spare:
            if _total(wanted) > width:
                del wanted[name]
        while (excess := _total(wanted) - width) > 0:
            widest = max(wanted, key=wanted.__getitem__)
            if wanted[widest] <= _NARROWEST:
                break
            wanted[widest] = max(_NARROWEST, wanted[widest] - excess)
        return self._table(rows, columns, wanted)

    def _table(self, rows: Sequence[Row], columns: Sequence[str], widths: dict[str, int]) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style=_FAINT)
        places = [place for place, name in enumerate(self._columns) if name in widths]
        for place in places:
            name = self._columns[place]
            is_word = place == 0 or name in _WORDS
            table.add_column(
                _cut(columns[place], widths[name]),
                justify="left" if is_word else "right",
                width=widths[name],
                no_wrap=True,
            )
        for row in rows:
            cells = [*row.cells, *[""] * (len(columns) - len(row.cells))]
            table.add_row(*(_cut(cells[place], widths[self._columns[place]]) for place in places))
        return table


class View:
    """The verdict and the tables, for any terminal."""

    def __init__(self, verdict: Sequence[Text], sheets: Sequence[Sheet]) -> None:
        self._verdict = verdict
        self._sheets = [sheet for sheet in sheets if sheet.rows]

    def __repr__(self) -> str:
        return f"<View [{len(self._verdict)} lines of verdict, {len(self._sheets)} tables]>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the parts. Without a height (a pipe, a file) every row is shown."""
        width = options.max_width
        if options.height is None:
            yield from self._verdict
            for sheet in self._sheets:
                yield ""
                yield sheet.drawn(width, len(sheet.rows))
            return
        yield from self._fitted(console, width, options.height)

    def _fitted(self, console: Console, width: int, height: int) -> RenderResult:
        room = height - 1  # the last line says what is left out
        said = [one.wrap(console, width) for one in self._verdict]
        shown = 0
        while shown < len(said) and (shown == 0 or len(said[shown]) <= room - height // 2):
            yield from list(said[shown])[:room]
            room -= len(said[shown])
            shown += 1
        most = self._most_rows(room)
        for sheet, rows in zip(self._sheets, most, strict=True):
            if rows:
                yield sheet.drawn(width, rows)
        left_out = ", ".join(_left_out(len(said) - shown, most.count(0)))
        if left_out:
            yield _cut(Text(f"not shown: {left_out} (top --once | cat has all)", style=_FAINT), width)

    def _most_rows(self, room: int) -> Sequence[int]:
        """How many rows each table has, in so many lines; a table without rows has no header."""
        most = [0] * len(self._sheets)
        for place, sheet in enumerate(self._sheets):
            least = min(_LEAST_ROWS, len(sheet.rows))
            if room > least:
                most[place] = least
                room -= 1 + least
        for place, sheet in enumerate(self._sheets):
            if most[place]:
                more = min(room, len(sheet.rows) - most[place])
                most[place] += more
                room -= more
        return most


def _column(rows: Sequence[Row], place: int) -> Iterator[Cell]:
    yield ""
    yield from (row.cells[place] for row in rows if place < len(row.cells))


def _total(widths: dict[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)


def _left_out(troubles: int, tables: int) -> Iterator[str]:
    if troubles:
        yield f"{troubles} more {'line' if troubles == 1 else 'lines'} of what is wrong"
    if tables:
        yield f"{tables} {'table' if tables == 1 else 'tables'}"


def _cut(text: Cell, width: int) -> Text:
    """Returns the text; of one that is wider, its beginning and its end."""
    style = text.style if isinstance(text, Text) else ""
    plain = str(text)
    if cell_len(plain) > width:
        end = (width - 1) // 2
        begin = chop_cells(plain, width - 1 - end)[0]
        plain = f"{begin}…{chop_cells(plain[::-1], end)[0][::-1] if end else ''}"
    return Text(plain, style=style)
