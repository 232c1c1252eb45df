/* Guest memory in and out by pages: bit i of byte i / 8 of a bitmap is page i. */
#ifndef CPUFW_PAGES_H
#define CPUFW_PAGES_H

#include <stddef.h>
#include <stdint.h>

enum { CPUFW_PAGE = 4096 };

/* Copies those of `count` pages that `wanted` has and that are not all zeros to `out`, one after
 * the other, and sets their bits in `filled`, which begins as zeros. Returns how many. */
size_t cpufw_pack_pages(const uint8_t *memory, size_t count, const uint8_t *wanted,
                        uint8_t *filled, uint8_t *out);
/* Undoes that: the `wanted` pages that are not `filled` become zeros. */
void cpufw_unpack_pages(uint8_t *memory, size_t count, const uint8_t *wanted,
                        const uint8_t *filled, const uint8_t *data);

#endif
