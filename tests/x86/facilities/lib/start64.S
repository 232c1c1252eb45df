# Entry in long mode with the first 4 GiB mapped one to one, interrupts off (cpufw_x86.boot).
#define MAX_CPUS 1024
#define STACK 4096

        .section .text.start, "ax"
        .code64
        .globl  start
start:
        lea     boot_stack_end(%rip), %rsp
        call    take_tables
        call    guest_main
0:      hlt
        jmp     0b

# Loads this project's own GDT, IDT, TSS and segments; keeps all registers but rax.
        .globl  take_tables
take_tables:
        lgdt    gdt_pointer
        lidt    idt_pointer
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %eax, %eax
        mov     %eax, %fs
        mov     %eax, %gs
        pushq   $0x08
        pushq   $1f
        lretq
1:      ret

# ---- where exceptions and interrupts come in ----

        .text
        .macro  stub vector
        .align  16
        .if     \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21
        .else
        push    $0
        .endif
        push    $\vector
        jmp     common
        .endm

        .align  16
        .globl  stubs
stubs:
        .altmacro
        .set    vector, 0
        .rept   256
        stub    %vector
        .set    vector, vector + 1
        .endr

common:
        push    %rax
        push    %rbx
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %rbp
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, %rdi
        mov     %rsp, %rbp
        and     $-16, %rsp
        cld
        call    dispatch
        mov     %rbp, %rsp
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rbp
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rbx
        pop     %rax
        add     $16, %rsp
        iretq

# ---- how another CPU comes up: from real mode at 0x8000 to long mode ----

        .section .rodata
        .code16
        .globl  trampoline, trampoline_end
trampoline:
        cli
        xor     %ax, %ax
        mov     %ax, %ds
        lgdtl   0x8000 + (trampoline_gdt_pointer - trampoline)
        mov     0x8000 + (trampoline_cr4 - trampoline), %eax
        mov     %eax, %cr4
        mov     0x8000 + (trampoline_cr3 - trampoline), %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx
        rdmsr
        or      $0x900, %eax                # LME, NXE
        wrmsr
        mov     $0x80000011, %eax           # PG, ET, PE
        mov     %eax, %cr0
        ljmpl   $0x08, $other_cpu
        .align  4
trampoline_gdt_pointer:
        .word   gdt_end - gdt - 1
        .long   gdt
        .align  4
        .globl  trampoline_cr3, trampoline_cr4
trampoline_cr3:
        .long   0
trampoline_cr4:
        .long   0
trampoline_end:

        .text
        .code64
other_cpu:
        mov     $1, %edi
        lock xadd %edi, cpus_begun
        mov     %rdi, %rax
        inc     %rax
        shl     $12, %rax                   # STACK
        lea     stacks(%rax), %rsp
        call    take_tables
        call    other_cpu_main
0:      hlt
        jmp     0b

# ---- tables ----

        .data
        .align  16
        .globl  gdt, gdt_tss
gdt:
        .quad   0
        .quad   0x00af9b000000ffff          # 0x08 code, 64 bits
        .quad   0x00cf93000000ffff          # 0x10 data
        .quad   0x00cff3000000ffff          # 0x18 data of ring 3
        .quad   0x00affb000000ffff          # 0x20 code of ring 3, 64 bits
        .quad   0x00cf9b000000ffff          # 0x28 code, 32 bits
gdt_tss:
        .quad   0, 0                        # 0x30 the boot CPU's TSS
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .quad   gdt
        .align  8
idt_pointer:
        .word   256 * 16 - 1
        .quad   idt
        .globl  cpus_begun
        .align  4
cpus_begun:
        .long   1

        .bss
        .align  4096
        .globl  idt
idt:
        .skip   256 * 16
        .skip   STACK * 4
boot_stack_end:
        .globl  stacks
stacks:
        .skip   STACK * MAX_CPUS
        .section .note.GNU-stack, "", @progbits
