# The `kvm`-marked tests on an ordinary AMD-V host, under QEMU TCG.
# ARGS go to pytest: make test-svm ARGS="-k cpuid"
PYTHON ?= .venv/bin/python

# All of them take half an hour there. These few go the whole way, from a model to Linux and back.
SVM_QUICK := tests/kvm/test_kvm_x86_state.py tests/x86/test_guest_demo.py tests/x86/test_linux.py \
	tests/x86/test_real_guests.py

.PHONY: test-svm test-svm-quick svm-shell
test-svm:
	$(PYTHON) tests/svm run -- $(ARGS)

test-svm-quick:
	$(PYTHON) tests/svm run -- $(SVM_QUICK)

svm-shell:
	$(PYTHON) tests/svm shell
