PYTHON ?= python3
FULL = .venv/bin
CORE = .venv-core/bin
FLOORS = .venv-floors/bin
CUDA13 = .venv-cuda13/bin

SMALL = $(FULL)/dali-mixup bench --image-size 32 --batch-size 256 --num-classes 100 --threads 1 --rounds 100
KEEP_MEMORY = MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=17179869184

FASHION_MNIST = /usr/share/datasets/fashion-mnist

.PHONY: demo bench study test test-backends test-others test-wheel test-floors test-floors-core test-floors-backends test-sdist nightly lint docs dist

# The main job on real photographs: make demo, or make demo IMAGES=folder/with/one/folder/a/class
demo: .venv/ready
	$(FULL)/python -m benchmarks.demo $${IMAGES:+--images "$$IMAGES"}

# Beside the libraries it replaces, each figure measured in the same run; recorded for the README.
bench: .venv/bench-ready
	$(FULL)/python -m benchmarks.speed.cpu --rounds 60 --json benchmarks/results/cpu-blend.json
	$(FULL)/python -m benchmarks.speed.threads --json benchmarks/results/cpu-threads.json
	$(FULL)/python -m benchmarks.speed.clips --json benchmarks/results/cpu-clips.json
	$(FULL)/python -m benchmarks.speed.loader --rounds 14 --json benchmarks/results/cpu-loader.json
	$(FULL)/python -m benchmarks.speed.loss --json benchmarks/results/cpu-loss.json
	$(FULL)/python -m benchmarks.speed.step --json benchmarks/results/cpu-step.json
	$(FULL)/python -m benchmarks.speed.growth --json benchmarks/results/cpu-growth.json
	$(FULL)/python -m benchmarks.speed.host_time --json benchmarks/results/host-time.json
	for from in uint8 float; do \
		$(SMALL) --from-dtype $$from --json benchmarks/results/cpu-small-$$from.json && $(KEEP_MEMORY) \
		$(SMALL) --from-dtype $$from --json benchmarks/results/cpu-small-$$from-kept.json || exit 1; done

# Does it help: some 250 trainings on Fashion-MNIST, which are a Debian package.
study: .venv/ready
	test -d $(FASHION_MNIST) || apt-get install --yes dataset-fashion-mnist
	$(FULL)/python -m benchmarks.study.run --idx $(FASHION_MNIST) \
		--json benchmarks/results/study.json --pictures benchmarks/results

# The reference alone, as installed from the wheel, and all that needs no GPU, side by side.
test: .venv/ready .venv-core/ready
	$(MAKE) --jobs 2 --output-sync=target test-backends test-others lint test-wheel

test-backends test-others: export DALI_MIXUP_TEST_BACKENDS = numpy,numba,host,ptx,torch,dali,dynamic
test-backends: .venv/ready
	$(FULL)/pytest tests/backends

test-others: .venv/ready
	$(FULL)/pytest --ignore tests/backends

# The wheel in an environment with numpy and pytest, from outside the package's folder.
test-wheel: .venv-core/ready
	rm -rf build/wheel
	$(CORE)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(CORE)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall build/wheel/*
	cd tests && DALI_MIXUP_TEST_BACKENDS=numpy ../$(CORE)/pytest

# The oldest versions: numpy 1.26, numba 0.59, CuPy 13.6, and DALI 1.53 and 2.0 in turn. CuPy 13 does not look for
# NVRTC's wheel by itself. DALI 2.0's proxy forks, and its own loader crashes in a process that has run
# many pipelines, so that its test has a process of its own. NVRTC is the newest, and what it compiles
# is executed by `make test`.
test-floors: .venv-floors/ready
	$(MAKE) --jobs 2 --output-sync=target test-floors-core test-floors-backends
	for dali in 1.53.0 2.0.0; do \
		$(FLOORS)/pip install --quiet --disable-pip-version-check nvidia-dali-cuda120==$$dali && \
		$(FLOORS)/pytest tests/loaders tests/runs/test_lightning.py \
			--ignore tests/loaders/test_proxy.py && \
		$(FLOORS)/pytest tests/loaders/test_proxy.py || exit 1; done

test-floors test-floors-core test-floors-backends: export DALI_MIXUP_TEST_BACKENDS = numpy,numba,host,torch,dali
test-floors test-floors-core test-floors-backends: export LD_LIBRARY_PATH = \
	$(shell echo $(CURDIR)/.venv-floors/lib/python3*/site-packages/nvidia/cuda_nvrtc/lib)
test-floors-core: .venv-floors/ready
	$(FLOORS)/pytest tests/core

test-floors-backends: .venv-floors/ready
	$(FLOORS)/pytest tests/backends --ignore tests/backends/test_planted_bugs.py \
		--ignore tests/backends/test_compiler.py --ignore tests/backends/test_counted.py -k 'not ptx'

# A wheel and a source distribution, in dist/, ready to be published.
dist: .venv/ready
	rm -rf dist
	$(FULL)/python -m build --quiet
	$(FULL)/twine check --strict dist/*

# The source distribution, built and installed where nothing else of this checkout is.
test-sdist: dist .venv-core/ready
	$(CORE)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.tar.gz
	cd tests && DALI_MIXUP_TEST_BACKENDS=numpy ../$(CORE)/pytest

# The site, in docs/_build/html; a warning is an error.
docs: .venv/ready
	$(FULL)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build/html

# What takes minutes: every specialisation for every architecture, long fuzzing, and what NVRTC 13 makes
# of the kernel.
nightly: .venv/ready .venv-cuda13/ready
	DALI_MIXUP_TEST_BACKENDS=numpy,numba,host,ptx,torch,dali,dynamic $(FULL)/pytest -m nightly
	DALI_MIXUP_TEST_BACKENDS=numpy,ptx $(CUDA13)/pytest -m '' tests/backends/test_kernel_as_ptx.py \
		tests/backends/test_planted_bugs.py tests/backends/test_compiler.py

lint: .venv/ready
	$(FULL)/ruff check
	$(FULL)/ruff format --check
	$(FULL)/mypy
	$(FULL)/lint-imports

# Everything that works without a GPU. timm and torchvision come without their dependencies, which ask
# for a torch that brings gigabytes of CUDA along; mixing needs none of them.
.venv/ready: pyproject.toml .ci/cpu-constraints.txt
	$(PYTHON) -m venv .venv
	$(FULL)/pip install --quiet --disable-pip-version-check -c .ci/cpu-constraints.txt \
		--editable '.[cpu,cli,demo,study,test,docs,dist]' cupy-cuda12x nvidia-cuda-nvrtc-cu12 \
		nvidia-cuda-runtime-cu12 nvidia-cuda-nvdisasm lightning torchdata accelerate transformers
	$(FULL)/pip install --quiet --disable-pip-version-check --no-deps timm torchvision
	touch $@

.venv/bench-ready: .venv/ready
	$(FULL)/pip install --quiet --disable-pip-version-check --no-deps kornia kornia_rs
	touch $@

.venv-floors/ready: pyproject.toml .ci/floor-constraints.txt
	$(PYTHON) -m venv .venv-floors
	$(FLOORS)/pip install --quiet --disable-pip-version-check -c .ci/floor-constraints.txt \
		--editable '.[cpu,cli,test]' nvidia-dali-cuda120==1.53.0 cupy-cuda12x \
		nvidia-cuda-nvrtc-cu12 nvidia-cuda-nvdisasm lightning torchdata
	touch $@

.venv-cuda13/ready: pyproject.toml .ci/cpu-constraints.txt
	$(PYTHON) -m venv .venv-cuda13
	$(CUDA13)/pip install --quiet --disable-pip-version-check -c .ci/cpu-constraints.txt \
		--editable '.[test]' torch cupy-cuda13x nvidia-cuda-nvrtc nvidia-cuda-nvdisasm
	touch $@

# What the reference needs and no more: its tests run in anybody's CI.
.venv-core/ready: pyproject.toml
	$(PYTHON) -m venv .venv-core
	$(CORE)/pip install --quiet --disable-pip-version-check numpy pytest
	touch $@
