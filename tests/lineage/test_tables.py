"""Tables: cells below each other as text, one row a line as Markdown."""

from hfgrow.lineage.tables import markdown_table, text_table

ROWS = [("arm", "loss"), ("scratch", "3.2"), ("g", "12.25")]


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    assert text_table(ROWS, left=[0]) == ["arm       loss", "scratch    3.2", "g        12.25"]


def test_no_line_ends_in_spaces() -> None:
    assert text_table(ROWS, left=[0, 1]) == ["arm      loss", "scratch  3.2", "g        12.25"]


def test_columns_that_do_not_fit_stand_below_behind_the_first() -> None:
    rows = [("arm", "loss", "tokens"), ("scratch", "3.2", "1000"), ("g", "12.25", "7")]
    assert text_table(rows, left=[0], width=16) == [
        "arm       loss",
        "scratch    3.2",
        "g        12.25",
        "",
        "arm      tokens",
        "scratch    1000",
        "g             7",
    ]
    assert text_table(rows, left=[0], width=4)[:3] == text_table(rows, left=[0], width=16)[:3]


def test_a_markdown_table_has_a_rule_below_its_header() -> None:
    header, *rows = ROWS
    assert markdown_table(header, rows) == [
        "| arm | loss |",
        "|---|---|",
        "| scratch | 3.2 |",
        "| g | 12.25 |",
    ]


def test_a_markdown_table_of_numbers_sets_all_but_the_first_column_right() -> None:
    header, *rows = ROWS
    assert markdown_table(header, rows, of_numbers=True)[1] == "| --- | ---: |"
