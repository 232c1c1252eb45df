#include "guest_memory.h"

#include <string.h>

#define CR0_WP (1ull << 16)
#define CR0_PG (1ull << 31)
#define CR4_PSE (1ull << 4)
#define CR4_PAE (1ull << 5)
#define CR4_LA57 (1ull << 12)
#define CR4_SMAP (1ull << 21)
#define EFER_LMA (1ull << 10)
#define RFLAGS_AC (1ull << 18)

#define PRESENT (1ull << 0)
#define WRITABLE (1ull << 1)
#define USER (1ull << 2)
#define ACCESSED (1ull << 5)
#define DIRTY (1ull << 6)
#define LARGE (1ull << 7)
#define FRAME 0x000ffffffffff000ull

enum { PAGE_SHIFT = 12, LARGEST_PAGE_SHIFT = 30, MOST_LEVELS = 5, RETRY = 1 };

uint8_t *cpufw_ram_at(const struct cpufw_ram *ram, uint64_t physical, uint64_t length)
{
    for (uint32_t i = 0; i < ram->count; i++) {
        const struct cpufw_ram_block *block = &ram->blocks[i];
        uint64_t offset = physical - block->start;
        if (offset < block->size && length <= block->size - offset)
            return block->host + offset;
    }
    return NULL;
}

static uint64_t load_entry(const uint8_t *place, unsigned size)
{
    return size == 8 ? __atomic_load_n((const uint64_t *)place, __ATOMIC_RELAXED)
                     : __atomic_load_n((const uint32_t *)place, __ATOMIC_RELAXED);
}

static int allowed(const struct kvm_sregs *sregs, uint64_t rflags, uint64_t permissions, int access)
{
    if (access & CPUFW_USER)
        return permissions & USER && (!(access & CPUFW_WRITE) || permissions & WRITABLE);
    if (access & CPUFW_WRITE && !(permissions & WRITABLE) && sregs->cr0 & CR0_WP)
        return 0;
    return !(permissions & USER && sregs->cr4 & CR4_SMAP && !(rflags & RFLAGS_AC));
}

/* One walk. RETRY: another CPU changed an entry meanwhile. */
static int walk(const struct cpufw_ram *ram, const struct kvm_sregs *sregs, uint64_t rflags,
                uint64_t linear, int access, struct cpufw_translation *found)
{
    int is_long = !!(sregs->efer & EFER_LMA), is_pae = is_long || sregs->cr4 & CR4_PAE;
    unsigned size = is_pae ? 8 : 4, bits = is_pae ? 9 : 10;
    unsigned shift = is_long ? (sregs->cr4 & CR4_LA57 ? 48 : 39) : is_pae ? 30 : 22;
    uint64_t table = sregs->cr3 & (is_long ? FRAME : is_pae ? 0xffffffe0 : 0xfffff000);
    int has_no_permissions = is_pae && !is_long; /* the four entries that CR3 leads to */
    uint64_t permissions = WRITABLE | USER, entry, seen[MOST_LEVELS], addresses[MOST_LEVELS];
    uint8_t *places[MOST_LEVELS];
    int visited = 0;

    for (;;) {
        uint64_t address = table + (linear >> shift & ((1u << bits) - 1)) * size;
        uint8_t *place = cpufw_ram_at(ram, address, size);
        if (!place)
            return CPUFW_NO_RAM;
        entry = load_entry(place, size);
        if (!(entry & PRESENT))
            return CPUFW_PAGE_FAULT | access;
        if (has_no_permissions) {
            has_no_permissions = 0;
        } else {
            permissions &= entry;
            places[visited] = place;
            addresses[visited] = address;
            seen[visited++] = entry;
            if (shift == PAGE_SHIFT || (entry & LARGE && shift <= LARGEST_PAGE_SHIFT &&
                                        (is_pae || sregs->cr4 & CR4_PSE)))
                break;
        }
        table = entry & (is_pae ? FRAME : 0xfffff000);
        shift -= bits;
    }
    if (!allowed(sregs, rflags, permissions, access))
        return CPUFW_PAGE_FAULT | PRESENT | access;
    for (int i = 0; i < visited; i++) {
        int is_last = i == visited - 1;
        uint64_t wanted = seen[i] | ACCESSED | (is_last && access & CPUFW_WRITE ? DIRTY : 0);
        if (wanted == seen[i])
            continue;
        if (!cpufw_compare_exchange(places[i], &seen[i], &wanted, size))
            return RETRY;
        found->entries[found->changed++] = addresses[i];
    }
    uint64_t offset = (1ull << shift) - 1, frame = entry & FRAME;
    if (!is_pae && shift > PAGE_SHIFT) /* PSE-36: bits 39:32 of the address are bits 20:13 */
        frame = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32;
    found->physical = (frame & ~offset) | (linear & offset);
    return 0;
}

int cpufw_translate(const struct cpufw_ram *ram, const struct kvm_sregs *sregs, uint64_t rflags,
                    uint64_t linear, int access, struct cpufw_translation *found)
{
    int result;
    if (!(sregs->cr0 & CR0_PG)) {
        found->physical = linear & 0xffffffff;
        found->changed = 0;
        return 0;
    }
    do {
        found->changed = 0;
        result = walk(ram, sregs, rflags, linear, access, found);
    } while (result == RETRY);
    return result;
}

#define COMPARE_EXCHANGE(type)                                                                     \
    do {                                                                                           \
        type expected, wanted;                                                                     \
        memcpy(&expected, old, sizeof expected);                                                   \
        memcpy(&wanted, desired, sizeof wanted);                                                   \
        return __atomic_compare_exchange_n((type *)memory, &expected, wanted, 0, __ATOMIC_SEQ_CST, \
                                           __ATOMIC_SEQ_CST);                                      \
    } while (0)

int cpufw_compare_exchange(void *memory, const void *old, const void *desired, unsigned size)
{
    switch (size) {
    case 1:
        COMPARE_EXCHANGE(uint8_t);
    case 2:
        COMPARE_EXCHANGE(uint16_t);
    case 4:
        COMPARE_EXCHANGE(uint32_t);
    case 8:
        COMPARE_EXCHANGE(uint64_t);
    }
    uint64_t low, high, new_low, new_high;
    unsigned char equal;
    memcpy(&low, old, 8);
    memcpy(&high, (const char *)old + 8, 8);
    memcpy(&new_low, desired, 8);
    memcpy(&new_high, (const char *)desired + 8, 8);
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(*(__int128 *)memory), "+a"(low), "+d"(high)
                     : "b"(new_low), "c"(new_high)
                     : "memory");
    return equal;
}
