/* Floating point, SSE and XSAVE. */
#include "guest.h"

enum { CR0_MP = 1 << 1, CR0_EM = 1 << 2, CR0_TS = 1 << 3, CR4_OSFXSR = 1 << 9 };
enum { X87 = 1, SSE = 2, AVX = 4 };

static uint8_t area[4096] __attribute__((aligned(64)));

CHECK(sse_moves)
{
    static uint64_t from[2] __attribute__((aligned(16))) = {0x1111, 0x2222}, to[2];
    WRITE_CR(0, (READ_CR(0) | CR0_MP) & ~(uint64_t)(CR0_EM | CR0_TS));
    WRITE_CR(4, READ_CR(4) | CR4_OSFXSR);
    asm volatile("movups %1, %%xmm3; movups %%xmm3, %0" : "=m"(to) : "m"(from));
    EXPECT(to[0] == 0x1111 && to[1] == 0x2222, "%x %x", to[0], to[1]);
}

CHECK(task_switched_faults)
{
    WRITE_CR(0, READ_CR(0) | CR0_TS);
    uint64_t vector = FAULTS("fninit", : : : "memory");
    asm volatile("clts");
    EXPECT(vector == NM, "vector %u", vector);
}

CHECK(x87)
{
    uint32_t two = 2, result = 0;
    asm volatile("fninit; fildl %1; fildl %1; faddp; fistpl %0" : "=m"(result) : "m"(two));
    EXPECT(result == 4, "%u", (uint64_t)result);
}

static bool has_xsave(void) { return cpuid(1, 0).ecx & 1 << 26; }

CHECK(xsave_is_off_at_first)
{
    SKIP_UNLESS(has_xsave(), "the CPU has no xsave");
    uint64_t vector = FAULTS("xgetbv", : : "c"(0) : "rax", "rdx", "memory");
    EXPECT(vector == UD, "vector %u", vector);
    EXPECT(!(cpuid(1, 0).ecx & 1 << 27), "CPUID shows OSXSAVE");
}

static uint64_t xgetbv(void)
{
    uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static uint64_t xsetbv_faults(uint64_t value)
{
    return FAULTS("xsetbv", : : "c"(0), "a"(value), "d"(value >> 32) : "memory");
}

CHECK(xcr0)
{
    SKIP_UNLESS(has_xsave(), "the CPU has no xsave");
    WRITE_CR(4, READ_CR(4) | CR4_OSXSAVE);
    EXPECT(cpuid(1, 0).ecx & 1 << 27, "CPUID shows no OSXSAVE");
    EXPECT(xgetbv() == X87, "it begins as %x", xgetbv());
    EXPECT(xsetbv_faults(X87 | SSE) == NOTHING && xgetbv() == (X87 | SSE), "%x", xgetbv());
    EXPECT(xsetbv_faults(SSE) == GP, "x87 could be turned off");
    EXPECT(xsetbv_faults(X87 | AVX) == GP, "AVX could be on without SSE");
    EXPECT(cpuid(0xd, 0).ebx >= 576, "the area has %u bytes", (uint64_t)cpuid(0xd, 0).ebx);
}

CHECK(saved_and_restored)
{
    SKIP_UNLESS(has_xsave(), "the CPU has no xsave");
    static uint64_t first[2] = {0xaaaa, 0xbbbb}, second[2] = {1, 2}, result[2];
    asm volatile("movups %1, %%xmm7; xsave %0" : "+m"(area) : "m"(first), "a"(~0), "d"(~0));
    asm volatile("movups %1, %%xmm7; xrstor %0" : : "m"(area), "m"(second), "a"(~0), "d"(~0));
    asm volatile("movups %%xmm7, %0" : "=m"(result));
    EXPECT(result[0] == 0xaaaa && result[1] == 0xbbbb, "%x %x", result[0], result[1]);
}

CHECK(avx)
{
    SKIP_UNLESS(has_xsave() && cpuid(1, 0).ecx & 1 << 28, "the CPU has no avx");
    static uint64_t from[4] = {1, 2, 3, 4}, to[4];
    EXPECT(xsetbv_faults(X87 | SSE | AVX) == NOTHING, "vector %u", fault.vector);
    asm volatile("vmovdqu %1, %%ymm2; vpxor %%ymm3, %%ymm3, %%ymm3; vpor %%ymm2, %%ymm3, %%ymm4; "
                 "vmovdqu %%ymm4, %0"
                 : "=m"(to)
                 : "m"(from));
    EXPECT(to[0] == 1 && to[3] == 4, "%x %x", to[0], to[3]);
    EXPECT(cpuid(0xd, 0).ebx >= 832, "the area has %u bytes", (uint64_t)cpuid(0xd, 0).ebx);
}
