# From a fresh clone: `make demo` shows it working, `make test` checks it. Both do all the set-up.
# With arguments: make demo ARGS="--serve", make test ARGS="-k budgets".
# With another Python, for a new .venv: make demo PYTHON=/path/to/python
.PHONY: tests benchmarks policy src tools demo test test-slow test-all test-oldest lint wheel docs release bench clean

# The suite starts many processes, and none should compile all modules anew.
export PYTHONDONTWRITEBYTECODE =

WORKFLOWS = .venv/bin/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/*.yml && .venv/bin/zizmor -q --offline --strict-collection --pedantic . && .venv/bin/pre-commit validate-config

demo:     ; @tools/bootstrap demo && .venv/bin/govbudget demo $(ARGS)
test:     ; @tools/bootstrap dev && .venv/bin/python -m pytest -n auto --dist worksteal $(ARGS)
test-slow: ; @tools/bootstrap dev && .venv/bin/python -m pytest -m "(slow or hypothesis) and not long and not wheel" -n auto --dist worksteal $(ARGS)
# Without a browser, the tests that need one fail and say so.
test-all: ; @tools/bootstrap dev && (tools/install-browser || true) && .venv/bin/python -m pytest -m "" -n auto --dist worksteal $(ARGS)
test-oldest: ; @tools/bootstrap dev && .venv/bin/python tools/install_oldest.py && .venv-oldest/bin/python -m pytest -n auto --dist worksteal $(ARGS)
lint:     ; @tools/bootstrap dev && .venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && $(WORKFLOWS)
wheel:    ; @tools/bootstrap dev && .venv/bin/python -m pytest -m wheel $(ARGS)
docs:     ; @tools/bootstrap dev && .venv/bin/sphinx-build -q -W --keep-going -c docs . build/site && echo build/site/index.html
release:  ; @tools/bootstrap dev && .venv/bin/python tools/release.py
bench:    ; @tools/bootstrap demo && .venv/bin/python benchmarks/install.py && .venv-bench/bin/python -m benchmarks $(ARGS)
# Folders too: make would find them and say that there is nothing to do.
.DEFAULT tests benchmarks policy src tools: ; @echo 'no target `$@`: try `make test`, or see CONTRIBUTING.md' >&2; exit 2
clean:    ; rm -rf .venv .venv-bench .venv-oldest build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
