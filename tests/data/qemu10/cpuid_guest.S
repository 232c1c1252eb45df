/* A guest that writes what CPUID answers on each of CPUS CPUs to the debug console, one CPU after
 * another: its APIC id, then for each leaf of LEAVES EAX, EBX, ECX, EDX, all as 32-bit words. It is
 * a 64 KiB firmware image; measure_cpuid.py builds and runs it.
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
    cld
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
    xor     %eax, %eax
    cmpl    $1, cpus
    je      identified          /* such a CPU may lack x2APIC */
    mov     $0x1b, %ecx         /* IA32_APIC_BASE: turn x2APIC on */
    rdmsr
    or      $0xc00, %eax
    wrmsr
    mov     $0x802, %ecx        /* the local APIC's id */
    rdmsr
identified:
    movl    %eax, %es:ANSWER
    mov     $4, %cx
    call    write
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
    mov     $16, %cx
    call    write
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

write:                          /* CX bytes at ANSWER */
    mov     $ANSWER, %bx
next_byte:
    movb    %es:(%bx), %al
    outb    %al, $0xe9
    inc     %bx
    loop    next_byte
    ret

first_cpu:
    cmpl    $1, cpus
    je      leave
    movb    $1, %es:WOKEN
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
    mov     $0x2000, %cx
    rep movsb
    ljmp    $0x800, $0
.org 0xfff0
    ljmp    $0xf000, $boot
.org 0x10000
