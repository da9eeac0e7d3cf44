.PHONY: install test slow check format train clean

install:  ## install the package with the test and development tools, and the pre-commit hooks
	pip install -e ".[dev]"
	pre-commit install

test:  ## run the fast tests
	pytest

slow:  ## run the slow tests
	pytest -m slow

check:  ## check lint, format and types, as CI does
	ruff check .
	ruff format --check .
	mypy

format:  ## fix lint and format
	ruff check --fix .
	ruff format .

train:  ## train on the digits that ship with scikit-learn
	python -m guided_diffusion.train

clean:  ## remove outputs and caches
	rm -rf outputs wandb dist build .pytest_cache .mypy_cache .ruff_cache
