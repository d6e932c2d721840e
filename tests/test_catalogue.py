"""Every case of the catalogue has a test, and the table says which."""

from tests.catalogue import GROUPS, TABLE, cases, found, table


def test_every_case_has_a_test() -> None:
    held = found()
    assert [number for number in cases() if number not in held] == []


def test_every_marker_names_a_case() -> None:
    assert not found().keys() - cases().keys()


def test_the_numbers_of_a_group_have_no_gap() -> None:
    numbers = list(cases())
    for group in GROUPS:
        own = [int(number[1:].strip("-")) for number in numbers if number[0] == group]
        assert own == list(range(1, len(own) + 1))
    assert len(numbers) == 161


def test_the_table_is_written_from_the_markers() -> None:
    written = TABLE.read_text(encoding="utf-8")
    assert written == table(), "run: python -m tests.catalogue"
