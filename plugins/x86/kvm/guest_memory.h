/* A guest's memory by linear address, as one of its vCPUs sees it: its page tables are walked for
 * each access. Intel SDM vol. 3A, chapter 5; not looked at: protection keys, shadow stacks,
 * reserved bits. */
#ifndef CPUFW_GUEST_MEMORY_H
#define CPUFW_GUEST_MEMORY_H

#include <linux/kvm.h>
#include <stdint.h>

enum { CPUFW_RAM_BLOCKS = 8 };

/* Where the guest's RAM is in this process. */
struct cpufw_ram {
    uint32_t count;
    struct cpufw_ram_block {
        uint64_t start, size;
        uint8_t *host;
    } blocks[CPUFW_RAM_BLOCKS];
};

/* Why an access failed: a page fault, whose error code is added, or no RAM in its way. */
enum { CPUFW_PAGE_FAULT = 0x100, CPUFW_NO_RAM = -1 };
enum { CPUFW_WRITE = 1 << 1, CPUFW_USER = 1 << 2 }; /* bits of the error code */

/* The bytes at a guest-physical address, NULL where `length` of them are not in one block. */
uint8_t *cpufw_ram_at(const struct cpufw_ram *ram, uint64_t physical, uint64_t length);

/* Where a linear address leads, and which page-table entries got accessed and dirty bits. */
struct cpufw_translation {
    uint64_t physical;
    uint32_t changed;
    uint64_t entries[5]; /* guest-physical addresses of the changed ones */
};

/* Finds `linear` for `access` (CPUFW_WRITE, CPUFW_USER). 0, CPUFW_PAGE_FAULT or CPUFW_NO_RAM. */
int cpufw_translate(const struct cpufw_ram *ram, const struct kvm_sregs *sregs, uint64_t rflags,
                    uint64_t linear, int access, struct cpufw_translation *found);

/* Atomic, naturally aligned; size 1, 2, 4, 8 or 16. Whether `old` was there. */
int cpufw_compare_exchange(void *memory, const void *old, const void *desired, unsigned size);

#endif
