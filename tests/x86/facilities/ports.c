/* Ports and memory-mapped registers, one by one and as strings. */
#include "guest.h"

enum { SCRATCH = 0x3ff, NOBODY = 0x1230 };

CHECK(nobody_answers_with_ones)
{
    EXPECT(inb(NOBODY) == 0xff && inw(NOBODY) == 0xffff && inl(NOBODY) == 0xffffffff, "%x %x %x",
           (uint64_t)inb(NOBODY), (uint64_t)inw(NOBODY), (uint64_t)inl(NOBODY));
    outl(NOBODY, 0x12345678);
    volatile uint64_t *memory = (volatile uint64_t *)0xd0000000;
    EXPECT(*memory == ~0ull, "memory: %x", *memory);
    *memory = 0;
    EXPECT(*(volatile uint8_t *)memory == 0xff, "memory: %x", (uint64_t)*(volatile uint8_t *)memory);
}

CHECK(string_to_a_port)
{
    const char text[] = "written by outsb\n", *from = text;
    uint64_t count = sizeof text - 1;
    asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(0x3f8) : "memory");
    EXPECT(!count && from == text + sizeof text - 1, "%u bytes are left", count);
}

CHECK(string_from_a_port)
{
    uint8_t bytes[64];
    void *to = bytes;
    uint64_t count = sizeof bytes;
    outb(SCRATCH, 0x5a);
    asm volatile("rep insb" : "+D"(to), "+c"(count) : "d"(SCRATCH) : "memory");
    EXPECT(!count && to == bytes + sizeof bytes, "%u bytes are left", count);
    for (int i = 0; i < 64; i++)
        EXPECT(bytes[i] == 0x5a, "byte %u is %x", (uint64_t)i, (uint64_t)bytes[i]);
}

CHECK(string_backwards)
{
    uint8_t bytes[8] = {0};
    void *to = bytes + sizeof bytes - 1;
    uint64_t count = 8;
    outb(SCRATCH, 0xa5);
    asm volatile("std; rep insb; cld" : "+D"(to), "+c"(count) : "d"(SCRATCH) : "memory");
    EXPECT(bytes[0] == 0xa5 && bytes[7] == 0xa5, "%x %x", (uint64_t)bytes[0],
           (uint64_t)bytes[7]);
}

CHECK(string_of_words_across_a_page)
{
    uint8_t *pages = page();
    page();
    uint16_t *words = (uint16_t *)(pages + PAGE - 3);
    void *to = words;
    uint64_t count = 4;
    asm volatile("rep insw" : "+D"(to), "+c"(count) : "d"(NOBODY) : "memory");
    EXPECT(!count && words[0] == 0xffff && words[3] == 0xffff, "%x %x", (uint64_t)words[0],
           (uint64_t)words[3]);
}

CHECK(memory_mapped_register_of_the_apic)
{
    EXPECT((apic_read(APIC_VERSION) & 0xff) >= 0x10, "version %x", (uint64_t)apic_read(APIC_VERSION));
    apic_write(APIC_TPR, 0x30);
    EXPECT(apic_read(APIC_TPR) == 0x30, "TPR %x", (uint64_t)apic_read(APIC_TPR));
    apic_write(APIC_TPR, 0);
}

CHECK(memory_mapped_register_of_the_ioapic)
{
    ioapic_route(3, IOAPIC_MASKED | 0x0500000000000033);
    EXPECT(ioapic_entry(3) == (IOAPIC_MASKED | 0x0500000000000033), "%x", ioapic_entry(3));
    *(volatile uint32_t *)0xfec00000 = 1;
    uint32_t version = *(volatile uint32_t *)0xfec00010;
    EXPECT((version >> 16 & 0xff) == 23, "version %x", (uint64_t)version);
}

CHECK(string_from_memory_that_is_not_there)
{
    uint8_t bytes[32] = {0}, *to = bytes;
    const uint8_t *from = (const uint8_t *)0xd0001000;
    uint64_t count = sizeof bytes;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    for (int i = 0; i < 32; i++)
        EXPECT(bytes[i] == 0xff, "byte %u is %x", (uint64_t)i, (uint64_t)bytes[i]);
}
