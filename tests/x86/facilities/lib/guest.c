#include "guest.h"

#include <stdarg.h>

enum { COM1 = 0x3f8, EXIT_PORT = 0xf4 };

/* Words that whoever runs the guest writes into the file, each with a space on either side. */
char arguments[512] __attribute__((used)) = "GUEST-ARGUMENTS ";

void *memset(void *to, int byte, size_t count)
{
    void *next = to;
    asm volatile("rep stosb" : "+D"(next), "+c"(count) : "a"(byte) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    void *next = to;
    asm volatile("rep movsb" : "+D"(next), "+S"(from), "+c"(count) : : "memory");
    return to;
}

int memcmp(const void *a, const void *b, size_t count)
{
    const uint8_t *x = a, *y = b;
    for (; count; count--, x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

/* ---- console ---- */

static void print_number(uint64_t value, unsigned base)
{
    char digits[24];
    int count = 0;
    do
        digits[count++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (count)
        outb(COM1, digits[--count]);
}

static void print_list(const char *format, va_list values)
{
    for (; *format; format++) {
        if (*format != '%') {
            outb(COM1, *format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *text = va_arg(values, const char *); *text; text++)
                outb(COM1, *text);
            break;
        case 'x':
            outb(COM1, '0');
            outb(COM1, 'x');
            print_number(va_arg(values, uint64_t), 16);
            break;
        case 'u':
            print_number(va_arg(values, uint64_t), 10);
            break;
        }
    }
}

void print(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    print_list(format, values);
    va_end(values);
}

/* ---- checks ---- */

static const struct check *current;
static bool said, failed;

static void say(const char *what, const char *format, va_list values)
{
    said = true;
    print("%s %s ", what, current->name);
    print_list(format, values);
    print("\n");
}

void fail(const char *format, ...)
{
    va_list values;
    failed = true;
    va_start(values, format);
    say("not ok", format, values);
    va_end(values);
}

void skip(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    say("skip", format, values);
    va_end(values);
}

void quit(uint8_t code)
{
    cli();
    outb(EXIT_PORT, code);
    for (;;)
        asm volatile("hlt");
}

bool argument(const char *word)
{
    size_t length = 0;
    while (word[length])
        length++;
    for (const char *at = arguments; *at; at++)
        if (at[0] == ' ' && !memcmp(at + 1, word, length) && at[1 + length] == ' ')
            return true;
    return false;
}

uint64_t number_argument(const char *name, uint64_t otherwise)
{
    size_t length = 0;
    while (name[length])
        length++;
    for (const char *at = arguments; *at; at++)
        if (at[0] == ' ' && !memcmp(at + 1, name, length)) {
            uint64_t value = 0;
            for (at += 1 + length; *at >= '0' && *at <= '9'; at++)
                value = 10 * value + *at - '0';
            return value;
        }
    return otherwise;
}

/* ---- exceptions and interrupts ---- */

struct gate {
    uint16_t low, selector, type;
    uint16_t middle;
    uint32_t high, zero;
};
extern struct gate idt[256];
extern char stubs[], gdt_tss[];
struct fault fault;
uint64_t recover_at;
static handler *handlers[256];
static uint8_t tss[104];
static uint8_t interrupt_stack[8192] __attribute__((aligned(16)));

void handle(uint8_t vector, handler *function) { handlers[vector] = function; }

void dispatch(struct frame *frame)
{
    if (handlers[frame->vector]) {
        handlers[frame->vector](frame);
        return;
    }
    if (recover_at && frame->vector < 32) {
        fault = (struct fault){frame->vector, frame->error, READ_CR(2), frame->rip};
        frame->rip = recover_at;
        recover_at = 0;
        return;
    }
    print("not ok %s died: vector %u error %x rip %x cr2 %x\n", current ? current->name : "start",
          frame->vector, frame->error, frame->rip, READ_CR(2));
    quit(2);
}

static void set_tables(void)
{
    for (int vector = 0; vector < 256; vector++) {
        uint64_t stub = (uint64_t)stubs + 16 * vector;
        /* Intel SDM vol. 3A, 7.14.1: a present interrupt gate; ring 3 may call BP and OF. */
        uint16_t type = vector == BP || vector == OF || vector == 0x80 ? 0xee00 : 0x8e00;
        idt[vector] = (struct gate){stub, CODE64, type, stub >> 16, stub >> 32, 0};
    }
    uint64_t stack = (uint64_t)interrupt_stack + sizeof interrupt_stack, base = (uint64_t)tss;
    memcpy(tss + 4, &stack, 8);    /* RSP0 */
    memcpy(tss + 36, &stack, 8);   /* IST1 */
    *(uint16_t *)(tss + 102) = sizeof tss;
    uint64_t *descriptor = (uint64_t *)gdt_tss;
    descriptor[0] = (sizeof tss - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 |
                    (base >> 24 & 0xff) << 56;
    descriptor[1] = base >> 32;
    asm volatile("ltr %w0" : : "r"(0x30));
}

extern const struct check checks_begin[], checks_end[];

void guest_main(void)
{
    set_tables();
    for (const struct check *check = checks_begin; check < checks_end; check++) {
        if (argument(check->name))
            continue;
        current = check;
        said = false;
        check->run();
        if (!said)
            print("ok %s\n", check->name);
    }
    quit(failed ? 1 : 0);
}
