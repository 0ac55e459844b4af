import pytest

from foreloom.distributed import agreement
from foreloom.distributed.process import Process


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What the ranks say, in place of asking them."""
    said: dict = {}
    monkeypatch.setattr(agreement, "gather_objects", lambda own, process: said["of_ranks"])
    return said


PROCESS = Process(0, 2, 0, None)  # type: ignore[arg-type]


def test_ranks_that_differ_are_told_in_what(gathered: dict) -> None:
    gathered["of_ranks"] = [{"code": "a", "recipe": "b"}, {"code": "a", "recipe": "b"}]
    agreement.check_agreement({}, PROCESS)
    gathered["of_ranks"] = [{"code": "a", "recipe": "b"}, {"code": "a", "recipe": "c"}]
    with pytest.raises(ValueError, match="disagree on the recipe: rank 0 has b, rank 1 has c"):
        agreement.check_agreement({}, PROCESS)


def test_shared_samples_are_told(gathered: dict) -> None:
    gathered["of_ranks"] = [[1, 2, 3], [4, 5], []]
    agreement.check_disjoint([], PROCESS)
    gathered["of_ranks"] = [[1, 2, 3], [3, 4]]
    with pytest.raises(ValueError, match="rank 0 and rank 1 both drew sample 3"):
        agreement.check_disjoint([], PROCESS)


def test_code_hash_is_stable() -> None:
    assert agreement.code_hash() == agreement.code_hash() and len(agreement.code_hash()) == 16
