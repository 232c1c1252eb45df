#include "pages.h"

#include <string.h>

static int has(const uint8_t *bitmap, size_t page)
{
    return bitmap[page / 8] >> page % 8 & 1;
}

static int is_zero(const uint8_t *page)
{
    static const uint8_t zeros[CPUFW_PAGE];
    return memcmp(page, zeros, CPUFW_PAGE) == 0;
}

size_t cpufw_pack_pages(const uint8_t *memory, size_t count, const uint8_t *wanted,
                        uint8_t *filled, uint8_t *out)
{
    size_t packed = 0;
    for (size_t i = 0; i < count; i++) {
        if (!has(wanted, i))
            continue;
        /* A running guest may write meanwhile: what is looked at is the copy. */
        uint8_t *copy = memcpy(out + packed * CPUFW_PAGE, memory + i * CPUFW_PAGE, CPUFW_PAGE);
        if (is_zero(copy))
            continue;
        filled[i / 8] |= 1 << i % 8;
        packed++;
    }
    return packed;
}

void cpufw_unpack_pages(uint8_t *memory, size_t count, const uint8_t *wanted,
                        const uint8_t *filled, const uint8_t *data)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t *page = memory + i * CPUFW_PAGE;
        if (!has(wanted, i))
            continue;
        if (has(filled, i)) {
            memcpy(page, data, CPUFW_PAGE);
            data += CPUFW_PAGE;
        } else if (!is_zero(page)) { /* else a page never touched would take up room */
            memset(page, 0, CPUFW_PAGE);
        }
    }
}
