"""The definitions that come with cpufw: YAML, its JSON schemas and, in a wheel, the compiled index."""
