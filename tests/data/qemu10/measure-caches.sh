#!/bin/sh
# Print what CPUID says of caches in models with their own: measure-caches.sh MODEL…
# Needs GNU as and ld, od, and qemu-system-x86_64 ($QEMU; $QEMU_OPTIONS for e.g. -L folders).
#
# 2 sockets x 2 dies x 2 cores x 2 threads tell the share levels apart; with an Intel vendor leaf
# 4 answers too, and it shows complex indexing, which leaf 8000001DH leaves out.
set -eu
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
as --32 "$here/cpuid-dump.S" -o "$work/dump.o"
ld -m elf_i386 -Ttext 0 -e 0 --oformat binary "$work/dump.o" -o "$work/dump.bin"
for model in "$@"; do
    rm -f "$work/out"
    # isa-debug-exit always ends QEMU with an odd status
    "${QEMU:-qemu-system-x86_64}" ${QEMU_OPTIONS:-} -machine q35 -accel tcg \
        -cpu "$model,vendor=GenuineIntel" -smp 16,sockets=2,dies=2,cores=2,threads=2 \
        -nodefaults -display none -bios "$work/dump.bin" -debugcon "file:$work/out" \
        -device isa-debug-exit,iobase=0xf4,iosize=1 2>/dev/null || true
    echo "$model"
    od -A n -v -w16 -t x4 "$work/out" | {
        for leaf in 4.0 4.1 4.2 4.3 4.4 80000005 80000006 \
            8000001d.0 8000001d.1 8000001d.2 8000001d.3 8000001d.4; do
            read -r registers
            echo "  $leaf $registers"
        done
    }
done
