"""The state of a PC: vCPUs, interrupt controllers, timers, devices and memory, as sections."""
