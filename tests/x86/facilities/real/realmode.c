/* Real mode: a flat image at 0x7c00, where all segments but CS are 0 and CS is the image's. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

asm(".section .text.start, \"ax\"\n"
    "start:\n"
    "    ljmp $0, $begin\n"
    "begin:\n"
    "    xor %ax, %ax\n"
    "    mov %ax, %ds\n"
    "    mov %ax, %es\n"
    "    mov %ax, %ss\n"
    "    mov $0x7c00, %sp\n"
    "    calll guest_main\n"
    "    hlt\n"
    ".text\n");

enum { COM1 = 0x3f8, EXIT_PORT = 0xf4 };

char arguments[512] __attribute__((used)) = "GUEST-ARGUMENTS ";

#include "../lib/checks32.h"

static bool left_out(const char *name)
{
    for (const char *at = arguments; *at; at++) {
        const char *a = at + 1, *b = name;
        while (*a == *b && *b)
            a++, b++;
        if (*at == ' ' && *a == ' ' && !*b)
            return true;
    }
    return false;
}

void guest_main(void)
{
    for (const struct check *check = checks_begin; check < checks_end; check++) {
        if (left_out(check->name))
            continue;
        current = check;
        failed_now = false;
        check->run();
        if (!failed_now) {
            print("ok ");
            print(check->name);
            print("\n");
        }
    }
    asm volatile("cli; outb %0, %1; 1: hlt; jmp 1b" : : "a"((uint8_t)failed), "N"(EXIT_PORT));
}

CHECK(arithmetic_and_flags)
{
    uint16_t sum;
    bool carry;
    asm volatile("addw %2, %0" : "=r"(sum), "=@ccc"(carry) : "r"((uint16_t)0x9000), "0"(0x8000));
    EXPECT(sum == 0x1000 && carry, "sum", sum);
}

CHECK(multiply_and_divide)
{
    uint16_t low, high, quotient, rest;
    asm volatile("mulw %w3" : "=a"(low), "=d"(high) : "0"(0x1234), "r"(0x5678) : "cc");
    EXPECT(((uint32_t)high << 16 | low) == 0x1234u * 0x5678u, "product", (uint32_t)high << 16 | low);
    asm volatile("divw %w4" : "=a"(quotient), "=d"(rest) : "0"(0x0000), "1"(1), "r"(10) : "cc");
    EXPECT(quotient == 6553 && rest == 6, "quotient", quotient);
}

CHECK(segments_move_addresses)
{
    volatile uint8_t *place = (volatile uint8_t *)0x6010;
    uint8_t value;
    *place = 0x66;
    asm volatile("mov %w1, %%fs; movb %%fs:0x10, %0; xor %%cx, %%cx; mov %%cx, %%fs"
                 : "=q"(value)
                 : "r"(0x600)
                 : "ecx");
    EXPECT(value == 0x66, "read", value);
}

CHECK(far_return_and_jump)
{
    uint16_t segment;
    asm volatile("pushw $0x10; pushw $1f - 0x100; lretw\n" /* the same place by another segment */
                 "1: mov %%cs, %0; ljmp $0, $2f\n"
                 "2:"
                 : "=r"(segment));
    EXPECT(segment == 0x10, "cs", segment);
}

static volatile uint16_t hits;
static volatile uint32_t hit_ip;

static void set_vector(uint8_t vector, uint16_t offset)
{
    volatile uint16_t *table;
    asm("xorl %0, %0" : "=r"(table)); /* the compiler takes a null it sees for a mistake */
    table[2 * vector] = offset;
    table[2 * vector + 1] = 0;
}

extern char on_hit[], on_divide[], after_int[];
asm("on_hit:\n"
    "    incw hits\n"
    "    iretw\n"
    "on_divide:\n"
    "    push %bp\n"
    "    mov %sp, %bp\n"
    "    incw hits\n"
    "    addw $2, 2(%bp)\n" /* over the division */
    "    pop %bp\n"
    "    iretw\n");

CHECK(software_interrupt)
{
    hits = 0;
    set_vector(0x42, (uint16_t)(uint32_t)on_hit);
    asm volatile("int $0x42; int $0x42" : : : "memory");
    EXPECT(hits == 2, "hits", hits);
}

CHECK(breakpoint)
{
    hits = 0;
    set_vector(3, (uint16_t)(uint32_t)on_hit);
    asm volatile("int3" : : : "memory");
    EXPECT(hits == 1, "hits", hits);
}

CHECK(divide_error)
{
    hits = 0;
    set_vector(0, (uint16_t)(uint32_t)on_divide);
    asm volatile("divb %%cl" : : "a"(5), "c"(0) : "memory", "cc"); /* two bytes long */
    EXPECT(hits == 1, "hits", hits);
}

CHECK(string_instructions)
{
    static const char from[] = "sixteen bits";
    static char to[16];
    const char *source = from;
    char *target = to;
    uint32_t count = sizeof from;
    asm volatile("cld; rep movsb" : "+S"(source), "+D"(target), "+c"(count) : : "memory");
    for (unsigned i = 0; i < sizeof from; i++)
        EXPECT(to[i] == from[i], "byte", i);
    target = to;
    count = sizeof to;
    asm volatile("repne scasb" : "+D"(target), "+c"(count) : "a"('x') : "cc", "memory");
    EXPECT(target == to + 3, "found at", target - to);
}

CHECK(stack)
{
    uint16_t before, after, value;
    asm volatile("mov %%sp, %0; pushw $0x1357; popw %2; mov %%sp, %1"
                 : "=r"(before), "=r"(after), "=r"(value));
    EXPECT(before == after && value == 0x1357, "popped", value);
}

CHECK(address_wraps_within_its_segment)
{
    volatile uint8_t *first = (volatile uint8_t *)0x5000;
    uint8_t value;
    *first = 0x5a;
    /* ds = 0x500: offset 0x10000 would be 0x15000, offset 0 is 0x5000 */
    asm volatile("mov %w1, %%fs; mov $0xffff, %%bx; movb %%fs:1(%%bx), %0; xor %%bx, %%bx; "
                 "mov %%bx, %%fs"
                 : "=a"(value)
                 : "r"(0x500)
                 : "ebx");
    EXPECT(value == 0x5a, "read", value);
}

static uint64_t descriptors[3] = {0, 0x00cf93000000ffff, 0x00009b000000ffff};
static struct {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed)) table = {sizeof descriptors - 1, 0};

CHECK(big_real_mode)
{
    volatile uint32_t *high;
    uint32_t value;
    table.base = (uint32_t)descriptors;
    asm volatile("cli\n"
                 "lgdtl %0\n"
                 "mov %%cr0, %%eax; or $1, %%al; mov %%eax, %%cr0\n"
                 "mov $8, %%bx; mov %%bx, %%fs\n"
                 "and $0xfe, %%al; mov %%eax, %%cr0\n"
                 "xor %%bx, %%bx; mov %%bx, %%fs" /* the limit of 4 GiB stays */
                 :
                 : "m"(table)
                 : "eax", "ebx", "memory");
    high = (volatile uint32_t *)0x300000;
    asm volatile("movl %1, %%fs:(%0)" : : "r"(high), "r"(0xb16b00b5) : "memory");
    asm volatile("movl %%fs:(%1), %0" : "=r"(value) : "r"(high) : "memory");
    EXPECT(value == 0xb16b00b5, "read", value);
}

CHECK(port_strings)
{
    const char *text = "from real mode\n";
    uint32_t count = 15;
    asm volatile("rep outsb" : "+S"(text), "+c"(count) : "d"(COM1) : "memory");
    EXPECT(!count, "left", count);
}

static volatile uint16_t ticks;
extern char on_tick[];
asm("on_tick:\n"
    "    push %ax\n"
    "    incw ticks\n"
    "    mov $0x20, %al\n"
    "    outb %al, $0x20\n"
    "    pop %ax\n"
    "    iretw\n");

CHECK(timer_interrupt_wakes_hlt)
{
    set_vector(8, (uint16_t)(uint32_t)on_tick);
    outb(0x20, 0x11), outb(0x21, 8), outb(0x21, 4), outb(0x21, 1), outb(0x21, 0xfe);
    outb(0x43, 0x34), outb(0x40, 0), outb(0x40, 0x10);
    for (int i = 0; i < 3; i++)
        asm volatile("sti; hlt; cli" : : : "memory");
    outb(0x21, 0xff);
    EXPECT(ticks >= 3, "ticks", ticks);
}

CHECK(cpuid)
{
    uint32_t eax, ebx, ecx, edx;
    asm volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(0));
    EXPECT(eax >= 1 && ebx, "highest leaf", eax);
}

CHECK(a20_is_on)
{
    volatile uint32_t *low = (volatile uint32_t *)0x5010;
    uint32_t value;
    *low = 1;
    /* 0xffff:0x5020 is 0x105010 */
    asm volatile("mov %w1, %%fs; movl %2, %%fs:0x5020; xor %%cx, %%cx; mov %%cx, %%fs"
                 : "=m"(value)
                 : "r"(0xffff), "r"(2)
                 : "ecx", "memory");
    EXPECT(*low == 1, "read", *low);
}
