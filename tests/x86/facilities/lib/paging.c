#include "guest.h"

extern char guest_end[];

void *page(void)
{
    static uint64_t next;
    if (!next)
        next = ((uint64_t)guest_end + PAGE - 1) & -(uint64_t)PAGE;
    void *found = (void *)next;
    next += PAGE;
    return memset(found, 0, PAGE);
}

static int top_level(void) { return READ_CR(4) & CR4_LA57 ? 5 : 4; }

static uint64_t *walk(uint64_t address, int level, bool make)
{
    uint64_t *table = (uint64_t *)(READ_CR(3) & 0xfffffffff000);
    for (int at = top_level();; at--) {
        uint64_t *entry = &table[address >> (12 + 9 * (at - 1)) & 0x1ff];
        if (at == level)
            return entry;
        if (!(*entry & PRESENT)) {
            if (!make)
                return NULL;
            *entry = (uint64_t)page() | PRESENT | WRITABLE | USER;
        } else if (*entry & LARGE && at < 4) {
            return NULL;
        }
        if (make)
            *entry |= USER; /* cpufw's own tables are the supervisor's */
        table = (uint64_t *)(*entry & 0xffffffffff000);
    }
}

uint64_t *entry_of(uint64_t address, int level) { return walk(address, level, false); }

void map(uint64_t address, uint64_t entry)
{
    *walk(address, 1, true) = entry;
    invlpg((void *)address);
}
