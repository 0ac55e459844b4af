from foreloom.checkpoint.checkpointer import Candidate, steps_to_keep


def test_scripted_run() -> None:
    """Ten checkpoints, every second one scored: what the folder holds after each save."""
    scores = {2: 0.9, 4: 0.5, 6: 0.7, 8: float("nan"), 10: 0.5}
    kept: list[Candidate] = []
    history = {}
    for step in range(1, 11):
        kept.append(Candidate(step, scores.get(step), needed=step == 10))
        keep = steps_to_keep(kept, num_latest=2, num_best=2)
        kept = [candidate for candidate in kept if candidate.step in keep]
        history[step] = sorted(keep)
    assert history == {
        1: [1],
        2: [1, 2],
        3: [2, 3],
        4: [2, 3, 4],
        5: [2, 4, 5],
        6: [4, 5, 6],
        7: [4, 6, 7],
        8: [4, 6, 7, 8],
        9: [4, 6, 8, 9],
        10: [4, 9, 10],
    }


def test_limits_of_zero() -> None:
    candidates = [Candidate(1, 0.1), Candidate(2), Candidate(3, 0.2)]
    assert steps_to_keep(candidates, num_latest=0, num_best=0) == {1, 2, 3}
    assert steps_to_keep(candidates, num_latest=1, num_best=0) == {3}
    needed_first = [Candidate(1, needed=True), Candidate(2), Candidate(3)]
    assert steps_to_keep(needed_first, num_latest=1, num_best=1) == {1, 3}
