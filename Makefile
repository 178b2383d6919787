# `make study` and `make test` are the two commands; the rest is for those who build on it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
LAB := .venv/share/jupyter/lab/settings

.PHONY: install study test lab notebooks bench gpu lint clean

install: $(READY)

study: $(READY)
	$(BIN)/dnm study

test: $(READY)  # two workers side by side, a thread each; the twenty slowest tests at the end
	$(BIN)/python -m pytest -n 2 --durations=20

lab: $(READY)  # JupyterLab's question about news is answered with no, in this environment alone
	mkdir -p $(LAB)
	echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $(LAB)/overrides.json
	$(BIN)/jupyter lab notebooks

notebooks: $(READY)  # run the committed notebooks anew, in place, with the pictures that GitHub shows
	DNM_PNG=1 $(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.store_widget_state=False \
	  --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

bench: $(READY)
	$(BIN)/dnm bench

gpu: $(READY)  # where there is a CUDA GPU: first whether it computes the same, then how fast
	$(BIN)/python -m pytest tests/test_fleet.py tests/test_device.py tests/test_training.py -k "gpu or graph"
	$(BIN)/dnm bench --dataset subj --out data/results/bench-gpu.json

lint: $(READY)
	$(BIN)/ruff check .

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dnm.egg-info
	@echo "runs/ and data/ are kept; remove them by hand if you no longer want them"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench,test]'
	touch $@
