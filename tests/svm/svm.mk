# Every `kvm`-marked test on an ordinary AMD-V host, under QEMU TCG.
# ARGS go to pytest: make test-svm ARGS="-k cpuid"
PYTHON ?= .venv/bin/python

.PHONY: test-svm svm-shell
test-svm:
	$(PYTHON) tests/svm run -- $(ARGS)

svm-shell:
	$(PYTHON) tests/svm shell
