/* A guest that writes what CPUID answers on each of CPUS CPUs to the debug console, 16 bytes a
 * leaf, one CPU after another. It is a 64 KiB firmware image; dump_topology.py builds and runs it.
 */
.code16
.globl _start

/* Low memory: the lock for the console, how many CPUs are done, whether the others were woken. */
.set LOCK, 0x500
.set DONE, 0x504
.set WOKEN, 0x508
.set ANSWER, 0x1000

_start:
report:                         /* every CPU, at 0800:0000 */
    cli
    mov     %cs, %ax
    mov     %ax, %ds
    xor     %ax, %ax
    mov     %ax, %es
wait_for_lock:
    mov     $1, %al
    xchg    %al, %es:LOCK
    test    %al, %al
    jz      locked
    pause
    jmp     wait_for_lock
locked:
    mov     $leaves, %si
next_leaf:
    cmpl    $0xffffffff, 4(%si)
    je      reported
    movl    (%si), %eax
    movl    4(%si), %ecx
    cpuid
    movl    %eax, %es:ANSWER
    movl    %ebx, %es:ANSWER + 4
    movl    %ecx, %es:ANSWER + 8
    movl    %edx, %es:ANSWER + 12
    mov     $ANSWER, %bx
    mov     $16, %cx
next_byte:
    movb    %es:(%bx), %al
    outb    %al, $0xe9
    inc     %bx
    loop    next_byte
    add     $8, %si
    jmp     next_leaf
reported:
    lock incl %es:DONE
    movb    $0, %es:LOCK
    cmpb    $0, %es:WOKEN
    je      first_cpu
halt:
    hlt
    jmp     halt

first_cpu:
    cmpl    $1, cpus
    je      leave               /* such a CPU may lack x2APIC */
    movb    $1, %es:WOKEN
    mov     $0x1b, %ecx         /* IA32_APIC_BASE: turn x2APIC on */
    rdmsr
    or      $0xc00, %eax
    wrmsr
    mov     $0x830, %ecx        /* ICR: INIT, then SIPI to 0800:0000, for all but this CPU */
    xor     %edx, %edx
    mov     $0xc4500, %eax
    wrmsr
    mov     $0xc4608, %eax
    wrmsr
wait_for_others:
    pause
    mov     cpus, %eax
    cmpl    %es:DONE, %eax
    ja      wait_for_others
leave:
    mov     $0xf4, %dx          /* isa-debug-exit */
    outb    %al, %dx
    jmp     halt

.balign 4
cpus:
    .long   CPUS
leaves:
    LEAVES
    .long   0, 0xffffffff

.org 0xf000
boot:                           /* the first CPU: copy `report` to low memory and go there */
    cli
    cld
    xor     %ax, %ax
    mov     %ax, %es
    movl    $0, %es:LOCK
    movl    $0, %es:DONE
    movl    $0, %es:WOKEN
    mov     $0xf000, %ax
    mov     %ax, %ds
    mov     $0x800, %ax
    mov     %ax, %es
    xor     %si, %si
    xor     %di, %di
    mov     $0x1000, %cx
    rep movsb
    ljmp    $0x800, $0
.org 0xfff0
    ljmp    $0xf000, $boot
.org 0x10000
