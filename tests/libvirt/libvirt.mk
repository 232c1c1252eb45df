# Debian's libvirt, unmodified, drives cpufw guests: tests/libvirt.
# ARGS go to pytest: make test-libvirt ARGS="-k hotplug"
PYTHON ?= .venv/bin/python

.PHONY: libvirt test-libvirt
libvirt:
	$(PYTHON) tests/libvirt fetch

test-libvirt: libvirt
	CPUFW_GUESTS=$$($(PYTHON) tests/guests where 2>/dev/null) $(PYTHON) -m pytest -m libvirt \
	  tests/libvirt $(ARGS)
