"""The x86 architecture plugin of cpufw."""
