"""The search for tokens finds them wherever a test could leave one."""

from pathlib import Path

import pytest

from tests.hub_server import ALICE
from tests.leaks import leaks
from tests.program import CANARY


@pytest.mark.case("G1")
@pytest.mark.parametrize("at", [0, (1 << 22) - 20, 1 << 23, (1 << 30) + 5])
def test_a_token_is_found_in_any_part_of_a_file(tmp_path: Path, at: int) -> None:
    path = tmp_path / "a" / "b.safetensors"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.seek(at)
        file.write(b"x" + CANARY.encode() + b"x")
        file.truncate(1 << 40)
    found = leaks(tmp_path)
    path.unlink()
    assert found == [str(path)]


@pytest.mark.case("G1")
def test_a_token_is_found_in_names_and_links(tmp_path: Path) -> None:
    (tmp_path / ALICE).mkdir()
    (tmp_path / "link").symlink_to(f"/nowhere/{CANARY}")
    (tmp_path / "good").write_text("hf_ and nothing more")
    found = leaks(tmp_path)
    (tmp_path / ALICE).rmdir()
    (tmp_path / "link").unlink()
    assert len(found) == 2
