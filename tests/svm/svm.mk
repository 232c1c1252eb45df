# The `kvm`-marked tests on an ordinary AMD-V host, under QEMU TCG.
# ARGS go to pytest: make test-svm ARGS="-k cpuid"
PYTHON ?= .venv/bin/python

# All of them take half an hour there. These are what a change is most likely to break: each is on
# another part of the way from a model to a guest's operating system.
SVM_QUICK := tests/kvm tests/x86/test_guest_run.py tests/x86/test_guest_death.py \
	tests/x86/test_guest_demo.py tests/x86/test_guest_hotplug.py tests/x86/test_linux.py \
	tests/x86/test_real_guests.py tests/x86/test_run_control.py tests/x86/test_snapshot.py

.PHONY: test-svm test-svm-quick svm-shell
test-svm:
	$(PYTHON) tests/svm run -- $(ARGS)

test-svm-quick:
	$(PYTHON) tests/svm run -- $(SVM_QUICK)

svm-shell:
	$(PYTHON) tests/svm shell
