"""Foreign text is harmless, and lines have the width they say."""

import unicodedata

from hypothesis import given, strategies as st
from rich.cells import cell_len
from rich.text import Text

from budgetrl.account.text import scrub
from budgetrl.display.glyphs import ASCII, MONOCHROME, UNICODE, glyphs_for
from budgetrl.display.spark import bar, chart
from budgetrl.display.typeset import ends, fit, rule, wrap

FOREIGN = st.text() | st.text(
    "\x1b[]0;m\x07\x9b\u202e\u2066\u200dAא界e\u0301\ufe0f \n", max_size=40
)


@given(FOREIGN)
def test_scrubbed_text_holds_nothing_that_moves_turns_or_hides(text: str) -> None:
    clean = scrub(text)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn") for c in clean)
    assert scrub(clean) == clean


def test_escape_sequences_leave_nothing_behind() -> None:
    assert scrub("a\x1b[2Jb\x1b]0;title\x07c\x1b]52;c;aGk=\x1b\\d\x9b31me") == "abcde"
    assert scrub("\x1b[31mred\x1b[0m, \x1b(0line\x1b7") == "red, line"


def test_letters_of_all_scripts_stay_and_overrides_go() -> None:
    assert scrub("שלום \u202eevil\u202c 界 é") == "שלום evil 界 é"


def test_marks_do_not_stack_up() -> None:
    assert len(scrub("a" + "\u0301" * 50)) == 3


@given(FOREIGN, st.integers(1, 60))
def test_wrapped_lines_fit_and_lose_no_word(text: str, width: int) -> None:
    clean = scrub(text)
    lines = wrap(clean, width)
    assert all(cell_len(line) <= max(2, width) for line in lines)
    assert "".join(lines).replace(" ", "") == clean.replace(" ", "")


@given(FOREIGN, st.integers(0, 60))
def test_fitted_lines_fit(text: str, width: int) -> None:
    line = Text(scrub(text))
    assert fit(line, width, UNICODE).cell_len <= max(1, width)
    assert rule(line.plain, width, UNICODE, note="a note").cell_len <= max(1, width)
    assert ends(line, Text("right"), width, UNICODE).cell_len <= max(1, width)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80), st.integers(1, 80), st.integers(1, 6)
)
def test_charts_fill_their_rows_and_the_highest_value_stands_highest(
    values: list[float], width: int, rows: int
) -> None:
    drawn = chart(values, width, rows, UNICODE)
    assert [len(row) for row in drawn] == [width] * rows
    if len(values) <= width:
        columns = ["".join(row[i] for row in drawn) for i in range(width)]
        heights = [sum(UNICODE.levels.index(c) for c in column) for column in columns]
        highest = values.index(max(values))
        places = [i for i in range(width) if i * len(values) // width == highest]
        assert all(heights[place] == max(heights) for place in places)
        assert min(heights) >= 1


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=7), st.integers(8, 200))
def test_bars_have_a_cell_for_every_part(sizes: list[float], width: int) -> None:
    parts = [(size, str(index)) for index, size in enumerate(sizes)]
    cells = bar(parts, sum(sizes), width)
    assert [name for _, name in cells] == [name for size, name in parts if size > 0]
    assert all(count >= 1 for count, _ in cells)
    assert not cells or sum(count for count, _ in cells) == width


def test_the_look_follows_encoding_and_colour() -> None:
    assert glyphs_for("utf-8", colour=True) is UNICODE
    assert glyphs_for("utf-8", colour=False) is MONOCHROME
    assert glyphs_for("latin-1", colour=True) is ASCII
    assert glyphs_for("no-such-encoding", colour=True) is ASCII
    look = [MONOCHROME.setup, MONOCHROME.baseline, MONOCHROME.train, MONOCHROME.end]
    assert len({*look, MONOCHROME.ahead, MONOCHROME.reserve, MONOCHROME.free}) == 7
