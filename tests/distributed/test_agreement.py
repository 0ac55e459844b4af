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
    facts = {"code": "a", "recipe": "b"}
    agreement.check_agreement(facts, PROCESS)
    gathered["of_ranks"] = [{"code": "a", "recipe": "b"}, {"code": "a", "recipe": "c"}]
    with pytest.raises(ValueError, match=r"disagree on the recipe \(recipe: rank 0 has b, rank 1 has c\)"):
        agreement.check_agreement(facts, PROCESS)
    with pytest.raises(ValueError, match=r"recipe \(recipe: rank 0 has b, rank 1 has c\)"):  # the digests' own parts
        agreement.check_agreement(facts, PROCESS, {"recipe": dict})


def test_what_differs_is_told_by_name() -> None:
    one = {f"setting{i}": "1" for i in range(9)}
    assert agreement.differences([one, one, one]) == ""
    told = agreement.differences([one, one, one | {"setting3": "2", "extra": "x"}])
    assert told == "setting3: rank 0 has 1, rank 2 has 2; extra: rank 0 has none, rank 2 has x"
    many = agreement.differences([one, {}])
    assert many.startswith("setting0: rank 0 has 1, rank 1 has none; setting1") and many.endswith("; and 5 more")
    files = agreement.code_files()
    assert "distributed/agreement.py" in files and all(len(digest) == 8 for digest in files.values())


def test_shared_samples_are_told(gathered: dict) -> None:
    gathered["of_ranks"] = [[1, 2, 3], [4, 5], []]
    agreement.check_disjoint([], PROCESS)
    gathered["of_ranks"] = [[1, 2, 3], [3, 4]]
    with pytest.raises(ValueError, match="rank 0 and rank 1 both drew sample 3"):
        agreement.check_disjoint([], PROCESS)


def test_code_hash_is_stable() -> None:
    assert agreement.code_hash() == agreement.code_hash() and len(agreement.code_hash()) == 16
