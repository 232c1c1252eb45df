# Figures against QEMU and plain C programs; see benchmarks/README.md.
# BENCH: groups and options, as in `make bench BENCH="hotplug --format json"`.

.PHONY: bench
bench: $(VENV)/.installed
	$(PYTHON) -m benchmarks $(BENCH)
