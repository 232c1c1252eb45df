/* Ring 3: entered and left, and what it may not do. */
#include "guest.h"

enum { USER_CODE = 0x5000000000, USER_STACK = 0x5000010000 };

/* Ring 3's registers as it left; `left_by` is the vector, or SYSCALL. */
enum { SYSCALL = 0x200 };
uint64_t left_by, left_error, left_rax, left_rip, left_cs, kernel_rsp;

/* Enter ring 3 at `rip` with iretq or sysretq, and come back when it leaves. */
void enter_user(uint64_t rip, uint64_t rsp, uint64_t by_sysret);
void syscall_target(void);
void leave_user(void) __attribute__((noreturn));
asm(".text\n"
    "enter_user:\n"
    "    push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "    mov %rsp, kernel_rsp\n"
    "    test %rdx, %rdx\n"
    "    jnz 1f\n"
    "    pushq $0x1b\n"
    "    push %rsi\n"
    "    pushq $0x2\n"
    "    pushq $0x23\n"
    "    push %rdi\n"
    "    iretq\n"
    "1:  mov %rdi, %rcx\n"
    "    mov $0x2, %r11d\n"
    "    mov %rsi, %rsp\n"
    "    sysretq\n"
    "syscall_target:\n"
    "    mov kernel_rsp, %rsp\n"
    "    movq $0x200, left_by\n"
    "    mov %rax, left_rax\n"
    "    mov %rcx, left_rip\n"
    "leave_user:\n"
    "    mov kernel_rsp, %rsp\n"
    "    pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
    "    ret\n");

static void on_leaving(struct frame *frame)
{
    if (!(frame->cs & 3))
        return;
    left_by = frame->vector;
    left_error = frame->error;
    left_rax = frame->rax;
    left_rip = frame->rip;
    left_cs = frame->cs;
    frame->rip = (uint64_t)leave_user;
    frame->cs = CODE64;
    frame->ss = DATA;
    frame->rflags = 2;
    frame->rsp = kernel_rsp;
}

/* Put code, as bytes, into user memory and run it. */
static void run_user(const char *code, uint64_t size, bool by_sysret)
{
    static uint8_t *place, *stack;
    if (!place) {
        place = page();
        stack = page();
        map(USER_CODE, (uint64_t)place | PRESENT | USER);
        map(USER_STACK, (uint64_t)stack | PRESENT | WRITABLE | USER);
        /* Page tables as Linux has them here, which cpufw needs for syscall on the PVM back end. */
        map(0xffffffffff600000, 0);
        wrmsr(MSR_STAR, (uint64_t)(0x13) << 48 | (uint64_t)CODE64 << 32);
        wrmsr(MSR_LSTAR, (uint64_t)syscall_target);
        wrmsr(MSR_FMASK, RFLAGS_IF | RFLAGS_TF);
        wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    }
    memcpy(place, code, size);
    for (int vector = 0; vector < 32; vector++)
        handle(vector, on_leaving);
    handle(0x80, on_leaving);
    left_by = left_error = left_rax = 0;
    enter_user(USER_CODE, USER_STACK + 0x800, by_sysret);
    for (int vector = 0; vector < 32; vector++)
        handle(vector, NULL);
    handle(0x80, NULL);
}
#define RUN_USER(code) run_user(code, sizeof code - 1, false)

CHECK(interrupt_gate)
{
    RUN_USER("\xb8\x2a\0\0\0\xcd\x80"); /* mov $42, %eax; int $0x80 */
    EXPECT(left_by == 0x80 && left_rax == 42, "vector %u rax %u", left_by, left_rax);
    EXPECT(left_cs == USER_CODE64, "cs %x", left_cs);
}

CHECK(system_call)
{
    RUN_USER("\xb8\x2b\0\0\0\x0f\x05"); /* mov $43, %eax; syscall */
    EXPECT(left_by == SYSCALL && left_rax == 43, "vector %u rax %u", left_by, left_rax);
    EXPECT(left_rip == USER_CODE + 7, "rip %x", left_rip);
}

CHECK(system_call_after_sysret)
{
    run_user("\xb8\x2c\0\0\0\x0f\x05", 7, true);
    EXPECT(left_by == SYSCALL && left_rax == 44, "vector %u rax %u", left_by, left_rax);
}

CHECK(privileged_instruction)
{
    RUN_USER("\xf4"); /* hlt */
    EXPECT(left_by == GP && left_error == 0, "vector %u error %x", left_by, left_error);
}

CHECK(gate_that_is_not_for_it)
{
    RUN_USER("\xcd\x40"); /* int $0x40 */
    EXPECT(left_by == GP && left_error == (0x40 << 3 | 2), "vector %u error %x", left_by,
           left_error);
}

CHECK(port)
{
    RUN_USER("\xe4\x80"); /* in $0x80, %al */
    EXPECT(left_by == GP, "vector %u", left_by);
}

CHECK(memory_of_the_supervisor)
{
    RUN_USER("\xa1\0\0\x20\0\0\0\0\0"); /* mov 0x200000, %eax */
    EXPECT(left_by == PF && left_error == 5, "vector %u error %x", left_by, left_error);
}

CHECK(breakpoint)
{
    RUN_USER("\xcc");
    EXPECT(left_by == BP && left_rip == USER_CODE + 1, "vector %u rip %x", left_by, left_rip);
}

CHECK(undefined_opcode)
{
    RUN_USER("\x0f\x0b");
    EXPECT(left_by == UD && left_rip == USER_CODE, "vector %u rip %x", left_by, left_rip);
}

CHECK(time_stamp_disabled)
{
    WRITE_CR(4, READ_CR(4) | CR4_TSD);
    RUN_USER("\x0f\x31\xcd\x80"); /* rdtsc; int $0x80 */
    WRITE_CR(4, READ_CR(4) & ~(uint64_t)CR4_TSD);
    EXPECT(left_by == GP, "vector %u", left_by);
}

CHECK(table_registers_are_hidden)
{
    SKIP_UNLESS(cpuid(7, 0).ecx & 1 << 2, "the CPU has no umip");
    WRITE_CR(4, READ_CR(4) | CR4_UMIP);
    RUN_USER("\x0f\x01\x04\x24\xcd\x80"); /* sgdt (%rsp); int $0x80 */
    WRITE_CR(4, READ_CR(4) & ~(uint64_t)CR4_UMIP);
    EXPECT(left_by == GP, "vector %u", left_by);
}
