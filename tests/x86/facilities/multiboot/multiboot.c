/* A Multiboot image in the manner of kvm-unit-tests: a command line, a module with the environment,
 * the number of CPUs from fw_cfg, INIT and SIPI to all of them, and an end through port 0xf4.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Multiboot Specification 0.6.96, 3.1 and 3.3 */
enum { HEADER = 0x1badb002, LOADED = 0x2badb002, COM1 = 0x3f8, EXIT_PORT = 0xf4 };
enum { HAS_MEMORY = 1 << 0, HAS_COMMAND_LINE = 1 << 2, HAS_MODULES = 1 << 3, HAS_MAP = 1 << 6 };
enum { FW_CFG = 0x510, SIGNATURE = 0, CPU_COUNT = 5, APIC = 0xfee00000, TRAMPOLINE = 0x7000 };

asm(".section .multiboot, \"ax\"\n"
    "    .long 0x1badb002, 0, -0x1badb002\n"
    ".text\n"
    ".globl start\n"
    "start:\n"
    "    mov $stack_end, %esp\n"
    "    push %ebx\n"
    "    push %eax\n"
    "    call guest_main\n"
    ".code16\n"
    "trampoline:\n"
    "    cli\n"
    "    xor %ax, %ax\n"
    "    mov %ax, %ds\n"
    "    lock incl 0x6ffc\n"
    "1:  hlt\n"
    "    jmp 1b\n"
    "trampoline_end:\n"
    ".code32\n"
    ".bss\n"
    "    .skip 8192\n"
    "stack_end:\n"
    ".text\n");

struct information {
    uint32_t flags, memory_lower, memory_upper, boot_device, command_line, module_count, modules;
    uint32_t symbols[4], map_length, map;
};
struct module {
    uint32_t start, end, name, reserved;
};

#include "../lib/checks32.h"

static uint32_t magic;
static const struct information *info;
static volatile uint32_t *const arrived = (volatile uint32_t *)0x6ffc;

void guest_main(uint32_t eax, const struct information *ebx)
{
    magic = eax;
    info = ebx;
    for (const struct check *check = checks_begin; check < checks_end; check++) {
        current = check;
        failed_now = false;
        check->run();
        if (!failed_now) {
            print("ok ");
            print(check->name);
            print("\n");
        }
    }
    outb(EXIT_PORT, failed);
    for (;;)
        asm volatile("hlt");
}

CHECK(loaded_by_multiboot)
{
    EXPECT(magic == LOADED, "eax", magic);
    EXPECT(info->flags & HAS_MAP, "flags", info->flags);
}

CHECK(memory_above_1_mib)
{
    EXPECT(info->flags & HAS_MEMORY, "flags", info->flags);
    EXPECT(info->memory_lower >= 512 && info->memory_lower <= 640, "lower", info->memory_lower);
    /* In KiB, of 32 MiB, without what the ACPI tables take. */
    EXPECT(info->memory_upper > 30000 && info->memory_upper <= 31744, "upper", info->memory_upper);
}

CHECK(command_line)
{
    EXPECT(info->flags & HAS_COMMAND_LINE, "flags", info->flags);
    print("command line: ");
    print((const char *)info->command_line);
    print("\n");
}

CHECK(environment_module)
{
    EXPECT(info->flags & HAS_MODULES && info->module_count == 1, "modules", info->module_count);
    const struct module *module = (const struct module *)info->modules;
    print("environment: ");
    for (const char *at = (const char *)module->start; at < (const char *)module->end; at++)
        outb(COM1, *at == '\n' ? ' ' : *at);
    print("\n");
}

static uint8_t fw_cfg_byte(void)
{
    uint8_t value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"((uint16_t)(FW_CFG + 1)));
    return value;
}

static void fw_cfg_select(uint16_t item)
{
    asm volatile("outw %0, %1" : : "a"(item), "Nd"((uint16_t)FW_CFG));
}

CHECK(fw_cfg_signature)
{
    fw_cfg_select(SIGNATURE);
    for (const char *letter = "QEMU"; *letter; letter++) {
        uint8_t byte = fw_cfg_byte();
        EXPECT(byte == *letter, "byte", byte);
    }
}

static uint32_t cpu_count(void)
{
    fw_cfg_select(CPU_COUNT);
    uint32_t low = fw_cfg_byte();
    return low | fw_cfg_byte() << 8;
}

CHECK(all_cpus_come_up)
{
    extern char trampoline[], trampoline_end[];
    volatile uint32_t *apic = (volatile uint32_t *)APIC;
    char *to = (char *)TRAMPOLINE;
    for (const char *from = trampoline; from < trampoline_end; from++)
        *to++ = *from;
    *arrived = 1;
    apic[0x300 / 4] = 0xc4500; /* INIT to all others */
    apic[0x300 / 4] = 0xc4600 | TRAMPOLINE >> 12;
    uint32_t wanted = cpu_count();
    for (uint32_t i = 0; i < 100000 && *arrived < wanted; i++)
        asm volatile("pause");
    EXPECT(wanted > 1 && *arrived == wanted, "arrived", *arrived);
}
