# make build       memo, the virtual CUDA driver beside it, and NVRTC where the machine has none
# make demo        build, then MEMO on a small trained model and shifted images
# make test        formatting, lints, every test, the demo
# make test-report memo report's page in a real browser, which is not part of make test: it needs Chromium
# make test-slurm  deploy/slurm on a Slurm of this machine alone; wants root, and Debian's slurm-wlm and munge
# make libtorch    a Python with PyTorch, for memo bench --against libtorch (4.6 GB); make libtorch-tch, one of the
#                  version that libtorch:tch is for
# make evidence    what every kernel is and does, as a table in benches/results (20 minutes to an hour)
# make gpu-bundle  one folder to carry to a machine with a GPU, see benches/gpu/run.sh

# The programs of tests that take longest, then all others, of both packages: two run at once, so that no core is idle where one has a
# single test left, or compiles kernels.
LONGEST = planted cli assembled batch hopper checked
TESTS = $(LONGEST) $(filter-out $(LONGEST), $(notdir $(patsubst %.rs,%,$(patsubst %/main.rs,%,\
  $(wildcard tests/*.rs tests/*/main.rs vcuda/tests/*.rs vcuda/tests/*/main.rs)))))

.PHONY: build nvrtc nvdisasm demo test test-lib test-doc test-wheels test-report test-slurm libtorch libtorch-tch evidence gpu-bundle clean

build:
	cargo build --release
	@$(MAKE) --no-print-directory nvrtc

# NVIDIA's run-time compiler of the newest version that fits the driver at hand, unless one that fits is here. --upgrade: else pip
# leaves another version's folder as it is, and says that it has installed.
nvrtc:
	@wheel=$$(target/release/memo doctor --wheel) && { [ -z "$$wheel" ] \
	  || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
	       --no-deps --upgrade --target .nvrtc "$$wheel"; }

# NVIDIA's disassembler, 6 MB, for the tests and the evidence: a machine's own may not know the newest GPUs.
nvdisasm:
	@test -n "$$MEMO_NVDISASM" || test -d .nvdisasm \
	  || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
	       --no-deps --target .nvdisasm 'nvidia-cuda-nvdisasm==13.5.*'

demo: build
	target/release/memo demo

test: build nvdisasm
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- --deny warnings
	cargo test --release --workspace --no-run
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target \
	  test-lib test-wheels $(TESTS:%=test-program-%) test-doc
	target/release/memo demo

# Attention's tiles have to fit into what a Turing has of shared memory.
test-lib:
	cargo test --release --workspace --lib
	VCUDA_ARCH=sm_75 cargo test --release --lib ops::attention

test-program-%:
	cargo test --release --workspace --test $*

test-doc:
	cargo test --release --workspace --doc

test-wheels:
	tests/nvrtc_wheels.sh

test-report:
	cargo test --release --test report -- --include-ignored

test-slurm: build
	tests/slurm.sh

libtorch:
	python3 -m venv .libtorch
	.libtorch/bin/python -m pip install --quiet --disable-pip-version-check --requirement benches/libtorch/requirements.txt

libtorch-tch:
	python3 -m venv .libtorch-tch
	.libtorch-tch/bin/python -m pip install --quiet --disable-pip-version-check --requirement benches/libtorch/rust/requirements.txt

evidence: build nvdisasm
	cargo bench --bench evidence -- --out "benches/results/$$(date +%F)-evidence"

gpu-bundle: build
	benches/gpu/bundle.sh gpu-bundle

clean:
	cargo clean
	rm -rf gpu-bundle demo-out .libtorch .libtorch-tch .nvdisasm
