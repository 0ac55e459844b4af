# Two commands set up everything: `make quickstart` trains, evaluates and forecasts; `make test` proves the checkout.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := runs/quickstart

.PHONY: install quickstart test check clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test]"
	touch $@

install: $(VENV)/installed

quickstart: install
	$(BIN)/foreloom train quickstart --out $(OUT) $(if $(wildcard $(OUT)/recipe.yaml),--resume)
	$(BIN)/foreloom evaluate $(OUT) --tasks examples/tasks.yaml
	$(BIN)/foreloom forecast $(OUT) examples/births.csv --horizon 28 --out $(OUT)/forecast.parquet --plot
	$(BIN)/foreloom report $(OUT)

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal

check: install
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

clean:
	rm -rf $(VENV) $(OUT)
