# What contributors and CI run. Each target works in the Python environment that is active.

.PHONY: help install lint script test slow browser vllm bench ci

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: ## install the program with what its tests need
	python -m pip install --quiet -e ".[test]"

lint: ## formatting, lint rules, types, known vulnerabilities
	ruff check .
	ruff format --check .
	mypy
	python -m tests.audit

script: ## check and test the page's script, and bundle it anew; needs node 18 or newer
	cd demo/page/stage && npm ci --silent && npm run --silent check && npm run --silent build

test: ## the tests a person runs, in under five minutes
	bash tests/run

slow: ## what those leave out, but for the browser and vLLM
	OMP_NUM_THREADS=1 python -m pytest -m slow --ignore tests/browser --ignore tests/vllm

browser: ## the page in Chromium
	OMP_NUM_THREADS=1 python -m pytest -m slow tests/browser

vllm: ## the engine contract on vLLM for CPUs, in an environment of its own
	bash tests/run_vllm

bench: ## one pair of replies against plain generate
	python -m demo.bench --only pair

ci: ## everything, from a bare machine
	bash .ci/run
