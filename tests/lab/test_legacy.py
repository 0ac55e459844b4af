"""The original lab's rules against the table that its own generators gave."""

import csv
from pathlib import Path

from foreloom.lab.legacy import legacy_run


def test_every_row_of_the_original_table_is_reproduced(shared: Path) -> None:
    table = shared / "oracles" / "scaling" / "experimental_progress" / "legacy" / "gen_experim_transformer.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert len(rows) == 104
    is_broken = []
    for row in rows:
        gpu = row.pop("gpu")
        its = {name: int(value) for name, value in row.items()}
        run = legacy_run(
            its["hidden_dim"],
            batch_size=its["target_eff_batch"],
            seq_length=its["seq_length"],
            gpu=gpu,  # type: ignore[arg-type]
        )
        assert (run.num_layers, run.num_heads) == (its["num_layers"], its["num_heads"]), row
        assert (run.num_parameters, run.num_tokens) == (its["params_legacy"], its["max_tokens"]), row
        assert (run.accumulation, run.micro_batch_size) == (its["grad_accum"], its["batch_size"]), row
        assert run.batch_size == its["eff_batch_actual"]
        is_broken.append(run.batch_size != its["target_eff_batch"])
    assert sum(is_broken) == 31  # its "constant effective batch"


def test_the_published_example_without_the_table() -> None:
    run = legacy_run(16)
    assert (run.num_layers, run.num_heads, run.num_parameters, run.num_tokens) == (1, 1, 858_465, 17_169_300)
    assert (run.accumulation, run.micro_batch_size) == (1, 64)
    wide = legacy_run(512)
    assert (wide.accumulation, wide.micro_batch_size, wide.batch_size) == (6, 10, 60)
