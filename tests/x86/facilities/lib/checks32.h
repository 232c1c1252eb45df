/* What checks and their report are in guests without lib/guest.c, of 16 and 32 bits; COM1 is
 * defined before. */
#include <stdbool.h>
#include <stdint.h>

struct check {
    const char *name;
    void (*run)(void);
};
#define CHECK(name)                                                                                \
    static void name(void);                                                                        \
    static const struct check check_##name                                                         \
        __attribute__((used, section("checks"), aligned(4))) = {#name, name};                      \
    static void name(void)
#define EXPECT(condition, what, value)                                                             \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail(what, value);                                                                     \
            return;                                                                                \
        }                                                                                          \
    } while (0)

extern const struct check checks_begin[], checks_end[];
static const struct check *current;
static bool failed, failed_now;

static void outb(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static void print(const char *text)
{
    for (; *text; text++)
        outb(COM1, *text);
}

static void fail(const char *what, uint32_t value)
{
    failed = failed_now = true;
    print("not ok ");
    print(current->name);
    print(" ");
    print(what);
    print(" 0x");
    for (int shift = 28; shift >= 0; shift -= 4)
        outb(COM1, "0123456789abcdef"[value >> shift & 0xf]);
    print("\n");
}
