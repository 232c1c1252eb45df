"""The definitions that come with cpufw: YAML, JSON schemas and, in a wheel, the compiled index."""
