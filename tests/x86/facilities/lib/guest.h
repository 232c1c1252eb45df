/* What the guests in the folder above share: a console, checks, faults, APICs, paging, CPUs. */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- instructions ---- */

static inline void outb(uint16_t port, uint8_t value)
{
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t value)
{
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t value)
{
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint16_t inw(uint16_t port)
{
    uint16_t value;
    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint32_t inl(uint16_t port)
{
    uint32_t value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static inline uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
    return (uint64_t)high << 32 | low;
}

static inline void wrmsr(uint32_t index, uint64_t value)
{
    asm volatile("wrmsr"
                 :
                 : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(index)
                 : "memory");
}

static inline uint64_t rdtsc(void)
{
    uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

struct registers {
    uint32_t eax, ebx, ecx, edx;
};

static inline struct registers cpuid(uint32_t leaf, uint32_t subleaf)
{
    struct registers r;
    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}

#define READ_CR(n)                                                                                 \
    ({                                                                                             \
        uint64_t value_;                                                                           \
        asm volatile("mov %%cr" #n ", %0" : "=r"(value_) : : "memory");                            \
        value_;                                                                                    \
    })
#define WRITE_CR(n, value) asm volatile("mov %0, %%cr" #n : : "r"((uint64_t)(value)) : "memory")

static inline void cli(void) { asm volatile("cli" : : : "memory"); }
static inline void sti(void) { asm volatile("sti" : : : "memory"); }
static inline void pause(void) { asm volatile("pause" : : : "memory"); }

/* An interrupt between the two would be slept over, so they stand together. */
static inline void sti_hlt(void) { asm volatile("sti; hlt; cli" : : : "memory"); }

static inline void invlpg(const void *address)
{
    asm volatile("invlpg (%0)" : : "r"(address) : "memory");
}

enum {
    CR0_WP = 1 << 16,
    CR4_TSD = 1 << 2,
    CR4_PAE = 1 << 5,
    CR4_PGE = 1 << 7,
    CR4_UMIP = 1 << 11,
    CR4_LA57 = 1 << 12,
    CR4_FSGSBASE = 1 << 16,
    CR4_PCIDE = 1 << 17,
    CR4_OSXSAVE = 1 << 18,
    CR4_SMEP = 1 << 20,
    CR4_SMAP = 1 << 21,
    RFLAGS_TF = 1 << 8,
    RFLAGS_IF = 1 << 9,
    RFLAGS_RF = 1 << 16,
    RFLAGS_AC = 1 << 18,
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_PAT = 0x277,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
};
#define MSR_EFER 0xc0000080
#define MSR_STAR 0xc0000081
#define MSR_LSTAR 0xc0000082
#define MSR_FMASK 0xc0000084
#define MSR_FS_BASE 0xc0000100
#define MSR_GS_BASE 0xc0000101
#define MSR_KERNEL_GS_BASE 0xc0000102
#define MSR_TSC_AUX 0xc0000103
enum { EFER_SCE = 1, EFER_NXE = 1 << 11 };

/* ---- checks ---- */

struct check {
    const char *name;
    void (*run)(void);
};

/* CHECK(name) { ... } is one test: it passes unless it calls `fail` or `skip`, or dies. */
#define CHECK(name)                                                                                \
    static void name(void);                                                                        \
    static const struct check check_##name                                                         \
        __attribute__((used, section("checks"), aligned(8))) = {#name, name};                      \
    static void name(void)

/* Ends the check, which must be the function it stands in, unless `condition` holds. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fail(__VA_ARGS__);                                                                     \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define SKIP_UNLESS(condition, ...)                                                                \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            skip(__VA_ARGS__);                                                                     \
            return;                                                                                \
        }                                                                                          \
    } while (0)

/* The formats know %s, %u and %x (both 64 bits wide). */
void print(const char *format, ...);
void fail(const char *format, ...);
void skip(const char *format, ...);
void quit(uint8_t code) __attribute__((noreturn));
bool argument(const char *word); /* was it given to this guest? */
uint64_t number_argument(const char *name_and_equals, uint64_t otherwise);

void *memset(void *to, int byte, size_t count);
void *memcpy(void *to, const void *from, size_t count);
int memcmp(const void *a, const void *b, size_t count);

/* ---- exceptions and interrupts ---- */

enum { DE = 0, DB = 1, NMI = 2, BP = 3, OF = 4, UD = 6, NM = 7, DF = 8, SS = 12, GP = 13, PF = 14 };
enum { NOTHING = 0x100 };

struct frame {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
    uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

typedef void handler(struct frame *frame);
void handle(uint8_t vector, handler *function); /* NULL: back to dying with a message */

struct fault {
    uint64_t vector, error, cr2, rip;
};
extern struct fault fault; /* what FAULTS met; vector NOTHING if nothing */
extern uint64_t recover_at;

/* Run instructions that may fault, and return the vector. Only on the boot CPU. */
#define FAULTS(instructions, ...)                                                                  \
    ({                                                                                             \
        fault.vector = NOTHING;                                                                    \
        asm volatile("movq $1f, recover_at\n\t" instructions "\n1:\tmovq $0, recover_at"           \
                     __VA_ARGS__);                                                                 \
        fault.vector;                                                                              \
    })

enum { CODE64 = 0x08, DATA = 0x10, USER_DATA = 0x1b, USER_CODE64 = 0x23, CODE32 = 0x28 };

/* ---- local APIC ---- */

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SPIV = 0xf0,
    APIC_ISR = 0x100,
    APIC_IRR = 0x200,
    APIC_ICR = 0x300,
    APIC_LVT_TIMER = 0x320,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,
    ICR_FIXED = 0,
    ICR_LOWEST = 1 << 8,
    ICR_NMI = 4 << 8,
    ICR_INIT = 5 << 8,
    ICR_SIPI = 6 << 8,
    ICR_LOGICAL = 1 << 11,
    ICR_ASSERT = 1 << 14,
    ICR_SELF = 1 << 18,
    ICR_ALL = 2 << 18,
    ICR_OTHERS = 3 << 18,
    TIMER_ONE_SHOT = 0,
    TIMER_PERIODIC = 1 << 17,
    TIMER_DEADLINE = 2 << 17,
    LVT_MASKED = 1 << 16,
};

uint32_t apic_read(uint32_t offset);
void apic_write(uint32_t offset, uint32_t value);
void apic_icr(uint32_t destination, uint32_t command); /* and wait until it is sent */
uint32_t apic_id(void);
void apic_eoi(void);
bool enable_x2apic(void); /* on this CPU; false where CPUID has none */
void pic_mask(uint16_t mask); /* a set bit masks that line; moves the lines to vector 0x20 */
void ioapic_route(uint8_t pin, uint64_t entry);
uint64_t ioapic_entry(uint8_t pin);
enum { PIC_BASE = 0x20, IOAPIC_LEVEL = 1 << 15, IOAPIC_MASKED = 1 << 16, PAGE = 0x1000 };

/* Wait, with interrupts on, until *counter reaches `value`; false after `ms` milliseconds. */
bool wait_for(volatile uint32_t *counter, uint32_t value, uint32_t ms);
uint64_t tsc_per_ms(void); /* measured against the ACPI timer, once */
uint64_t measure_tsc(uint32_t ms); /* the same, for so long */

/* ---- other CPUs ---- */

enum { MAX_CPUS = 1024 };
extern volatile uint32_t cpus_up; /* this one included */
extern uint32_t apic_id_of[MAX_CPUS]; /* in the order in which they came up */

uint32_t cpu_count(void); /* from the CPU hot-plug registers: those that are there */
bool start_cpus(uint32_t ms); /* INIT and SIPI to all others; false if some did not come */
bool start_cpu(uint32_t apic_id, uint32_t ms); /* that one */
void forget_cpus(void); /* the others are gone: count those that come from 1 again */
/* Run `function` on the CPU that came up as number `cpu`, waiting for its end. */
bool on_cpu(uint32_t cpu, void (*function)(void *), void *argument);
bool start_on_cpu(uint32_t cpu, void (*function)(void *), void *argument); /* without waiting */

/* ---- paging ---- */

enum {
    PRESENT = 1,
    WRITABLE = 2,
    USER = 4,
    ACCESSED = 1 << 5,
    DIRTY = 1 << 6,
    LARGE = 1 << 7,
    GLOBAL = 1 << 8,
};
#define NX (1ull << 63)

void *page(void); /* a zeroed page that nobody else has */
/* Map 4 KiB at `address` in the tables of CR3; tables are made on the way, for users too. */
void map(uint64_t address, uint64_t entry);
uint64_t *entry_of(uint64_t address, int level); /* 1: the 4 KiB page's entry; NULL: none */

#endif
