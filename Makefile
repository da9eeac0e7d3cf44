.PHONY: install test slow check format train clean

install:  ## the package, the tests and the tools of development
	pip install -e ".[dev]"
	pre-commit install

test:  ## the fast tests
	pytest

slow:  ## the long ones
	pytest -m slow

check:  ## lint, format and types, as CI has them
	ruff check .
	ruff format --check .
	mypy

format:
	ruff check --fix .
	ruff format .

train:  ## the main job, on embedded data
	python -m guided_diffusion.train

clean:
	rm -rf outputs wandb dist build .pytest_cache .mypy_cache .ruff_cache
