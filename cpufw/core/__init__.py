"""The ground floor: objects, CPU models, topology, hot-plug. No files, no KVM, no architecture."""
