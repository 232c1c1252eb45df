"""What is x86's own in the formats of others: libvirt's models, CPUID and MSR bitmaps."""
