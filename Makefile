# make compare   set up, then compare a DeepSeek-V3.2 block's norms on the device with HuggingFace's; report/ has the page
#                MODEL=v4 takes DeepSeek-V4's block; v2, v3, kimi, glm5, longcat, llama, qwen3 theirs
# make test      set up, then run the tests, but the long ones
# make test-long set up, then run the long tests
# make bench     set up, then measure the norms in simulated cycles
# make lint      set up, then check style and types
# make lock      write requirements.lock from pyproject.toml, keeping the versions that still fit
# make clean     remove .venv and all that tools left in this folder
#
# ARCH=wormhole chooses the chip; by default it is what the device is, and Blackhole where wolfpine is the device.

arch = $(if $(ARCH),--arch $(ARCH))
model = $(if $(MODEL),--model $(MODEL))

.PHONY: help setup compare test test-long bench lint lock clean

help:
	@sed -n 's/^# \?//p; /^$$/q' Makefile

setup:
	@scripts/setup.sh

compare: setup
	.venv/bin/python scripts/compare_block.py --layer 3 $(model) $(arch) --report report

test: marked = not long
test-long: marked = long
test test-long: setup
	@scripts/setup.sh browser
	.venv/bin/python -m pytest tests/ $(arch) -m "$(marked)" --numprocesses 2 --dist worksteal

bench: setup
	.venv/bin/python scripts/bench_norms.py $(arch)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

# Not uv.lock: it writes each file's URL, so a mirror of PyPI could not serve it.
lock:
	scripts/setup.sh lock

clean:
	rm -rf .venv build dist generated report *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
