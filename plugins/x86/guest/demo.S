# The demo guest: prints the CPU each vCPU sees, and plays the part of an
# operating system in CPU hot-plug. It needs no firmware and at least 4 MiB of RAM.
#
# The boot CPU does all the talking to the machine; the others report their CPUID
# words and then sleep until they are told to stop. 32-bit protected mode, paging
# off, integer instructions only, no iret: see README.md.
#
# Registers that every CPU keeps for life: %ebp = its APIC id, and on all but the
# boot CPU %ebx = its index in the hot-plug block, while it idles.

# --- Where things are -------------------------------------------------------

MAX_CPUS        = 1024                  # hot-plug slots we keep track of
STACK_SIZE      = 512                   # bytes; calls nest five deep, no arrays
TRAMPOLINE      = 0x8000                # start-up IPI vector 8, SDM vol. 3A 9.4.4
CODE_SEG        = 0x08
DATA_SEG        = 0x10

COM1            = 0x3f8                 # 16550A: THR +0, FCR/IIR +2, LCR +3, MCR +4, LSR +5
LSR_THRE        = 1 << 5
IIR_FIFO        = 3 << 6

PIC1_MASK       = 0x21
PIC2_MASK       = 0xa1

PM1_STS         = 0x600                 # ACPI 6.5 4.8.3.1
PM1_EN          = 0x602
PM1_CNT         = 0x604                 # ACPI 6.5 4.8.3.2
PM_TMR          = 0x608                 # ACPI 6.5 4.8.3.3
GPE0_STS        = 0x620                 # ACPI 6.5 4.8.4.1
GPE0_EN         = 0x628
PWRBTN          = 1 << 8                # in PM1_STS and PM1_EN
SLP_EN          = 1 << 13               # in PM1_CNT; SLP_TYP 0 is S5 on this chipset
GPE_CPU         = 1 << 2                # hot-plug event, QEMU docs/specs/acpi_cpu_hotplug
PM_TMR_MASK     = 0xffffff              # 24 bits are always there
PM_TMR_HZ       = 3579545
SCI_PIN         = 9

IOAPIC          = 0xfec00000            # index register; data at +0x10
IOAPIC_PIN_LOW  = 0x10                  # redirection entry n is at 0x10 + 2n
IOAPIC_LEVEL    = 1 << 15               # bit 13 clear: active high

LAPIC           = 0xfee00000            # SDM vol. 3A 11.4.1
LAPIC_EOI       = 0x0b0
LAPIC_SVR       = 0x0f0
LAPIC_ICR       = 0x300
LAPIC_ICR_HIGH  = 0x310
SVR_ENABLE      = 1 << 8
ICR_PENDING     = 1 << 12
ICR_FIXED       = 0x4000                # level assert, SDM vol. 3A 11.6.1
ICR_INIT        = 0x4500
ICR_STARTUP     = 0x4600 | (TRAMPOLINE >> 12)
APIC_BASE_MSR   = 0x1b
APIC_BASE_EXTD  = 1 << 10               # x2APIC mode, SDM vol. 3A 11.12.1
X2APIC_MSRS     = 0x800                 # register at offset r is MSR 0x800 + r / 16
XAPIC_MAX_ID    = 254                   # 255 is everyone

CPUHP           = 0xcd8                 # QEMU docs/specs/acpi_cpu_hotplug
CPUHP_SELECTOR  = CPUHP                 # write
CPUHP_DATA2     = CPUHP                 # read
CPUHP_FLAGS     = CPUHP + 4
CPUHP_COMMAND   = CPUHP + 5
CPUHP_DATA      = CPUHP + 8
FLAG_ENABLED    = 1 << 0
FLAG_INSERT     = 1 << 1
FLAG_REMOVE     = 1 << 2
FLAG_EJECT      = 1 << 3
COMMAND_NEXT    = 0
COMMAND_EVENT   = 1
COMMAND_STATUS  = 2
COMMAND_ARCH_ID = 3

OST_DEVICE_CHECK   = 1                  # source events, ACPI 6.5 5.6.6 and 6.3.5
OST_EJECT_REQUEST  = 3
OST_INSERTION      = 0x200
OST_SUCCESS        = 0                  # status codes, ACPI 6.5 6.3.5
OST_EJECT_NOT_SUPPORTED  = 0x80
OST_DEVICE_BUSY          = 0x82
OST_EJECT_IN_PROGRESS    = 0x84
OST_DRIVER_LOAD_FAILURE  = 0x81         # the nearest to "the CPU did not come up"
OST_INSERT_NOT_SUPPORTED = 0x82

VECTOR_SCI      = 0x40
VECTOR_STOP     = 0x41
VECTOR_SPURIOUS = 0x4f                  # low four bits set, SDM vol. 3A 11.9
INTERRUPT_FRAME = 12                    # EIP, CS, EFLAGS: no change of privilege

# States of a CPU, in cpu_state[index]
OFFLINE         = 0
PRESENT         = 1                     # enabled when we booted, not started yet
STARTING        = 2                     # SIPI sent
STARTED         = 3                     # answered, is printing
ONLINE          = 4
STOPPING        = 5
STOPPED         = 6

# %ebp = the APIC id of this CPU. Uses no stack: a CPU that starts has none yet.
    .macro  get_apic_id
    xor     %eax, %eax
    cpuid
    cmp     $0xb, %eax
    jb      .Lold\@
    mov     $0xb, %eax
    xor     %ecx, %ecx
    cpuid
    mov     %edx, %ebp
    test    %ebx, %ebx                  # 0: the leaf is not filled in, SDM vol. 2A CPUID
    jnz     .Ldone\@
.Lold\@:
    mov     $1, %eax
    cpuid
    mov     %ebx, %ebp
    shr     $24, %ebp
.Ldone\@:
    .endm

# Append text to the line at %edi.
    .macro  say text
    .pushsection .rodata
.Ltext\@:
    .asciz  "\text"
    .popsection
    push    %esi
    mov     $.Ltext\@, %esi
    call    put_string
    pop     %esi
    .endm

    .text

# --- Multiboot 1 ------------------------------------------------------------

    .globl  start
start:
    jmp     boot                        # also good for "enter at the load address"

    .balign 4
multiboot_header:
MB_MAGIC        = 0x1badb002
MB_FLAGS        = 1 << 16               # the address fields below are valid
    .long   MB_MAGIC, MB_FLAGS, -(MB_MAGIC + MB_FLAGS)
    .long   multiboot_header, image_start, image_end, bss_end, start

# --- Boot CPU ---------------------------------------------------------------

boot:
    cli
    cld
    lgdt    gdt_pointer
    ljmp    $CODE_SEG, $1f
1:  mov     $DATA_SEG, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    mov     $boot_stack_top, %esp
    lidt    idt_pointer

    mov     $cpu_state, %edi            # a warm reset leaves the last run's states
    mov     $MAX_CPUS, %ecx
    xor     %eax, %eax
    rep stosl
    mov     %eax, console_lock

    mov     $0xff, %al                  # everything comes by the I/O APIC
    out     %al, $PIC1_MASK
    out     %al, $PIC2_MASK
    call    console_init
    get_apic_id
    call    find_cpus
    call    choose_apic_mode
    call    apic_enable
    call    sci_enable
    call    copy_trampoline
    call    report
    call    start_present_cpus

# Every CPU sleeps here. Nothing in this loop needs to survive an interrupt, so a
# handler comes back by jumping here: iret is one instruction some hosts lack.
idle:
    sti
    hlt
    jmp     idle

# Have hot-plug and the power button interrupt the boot CPU (level, active high). It
# first takes that interrupt in idle, but from here on no event is lost: QEMU drops a
# press of a button that is not enabled.
sci_enable:
    mov     $IOAPIC_PIN_LOW + 2 * SCI_PIN + 1, %eax
    mov     %eax, IOAPIC
    mov     %ebp, %eax
    shl     $24, %eax
    mov     %eax, IOAPIC + 0x10
    mov     $IOAPIC_PIN_LOW + 2 * SCI_PIN, %eax
    mov     %eax, IOAPIC
    movl    $IOAPIC_LEVEL | VECTOR_SCI, IOAPIC + 0x10
    mov     $GPE0_EN, %edx
    mov     $GPE_CPU, %al
    out     %al, %dx
    mov     $PM1_EN, %edx
    mov     $PWRBTN, %eax
    out     %ax, %dx
    ret

copy_trampoline:
    mov     $trampoline, %esi
    mov     $TRAMPOLINE, %edi
    mov     $trampoline_end - trampoline, %ecx
    rep movsb
    ret

# List the slots of the hot-plug block: ids into cpu_ids, the enabled ones PRESENT.
find_cpus:
    xor     %ebx, %ebx
    xor     %eax, %eax
    mov     $CPUHP_SELECTOR, %edx
    out     %eax, %dx                   # leaves the legacy interface, where there is one
    out     %eax, %dx
    mov     $CPUHP_COMMAND, %edx
    mov     $COMMAND_NEXT, %al
    out     %al, %dx
    mov     $CPUHP_DATA2, %edx
    in      %dx, %eax
    test    %eax, %eax                  # anything else: there is no such block
    jnz     3f
    mov     $CPUHP_COMMAND, %edx
    mov     $COMMAND_ARCH_ID, %al
    out     %al, %dx
1:  call    select_cpu
    mov     $CPUHP_DATA, %edx
    in      %dx, %eax
    test    %ebx, %ebx                  # only the first slot may have id 0;
    jz      2f
    test    %eax, %eax                  # a selector past the last one reads 0
    jz      3f
2:  mov     %eax, cpu_ids(, %ebx, 4)
    mov     $CPUHP_FLAGS, %edx
    in      %dx, %al
    and     $FLAG_ENABLED, %al          # PRESENT or OFFLINE
    mov     %al, cpu_state(, %ebx, 4)
    cmp     %ebp, cpu_ids(, %ebx, 4)
    jne     4f
    movl    $ONLINE, cpu_state(, %ebx, 4)
4:  inc     %ebx
    cmp     $MAX_CPUS, %ebx
    jb      1b
3:  mov     %ebx, cpu_count
    ret

start_present_cpus:
    xor     %ebx, %ebx
1:  cmp     cpu_count, %ebx
    jae     2f
    cmpl    $PRESENT, cpu_state(, %ebx, 4)
    jne     3f
    call    start_cpu
3:  inc     %ebx
    jmp     1b
2:  ret

# --- Events -----------------------------------------------------------------

# The ACPI interrupt, boot CPU. Status is cleared before the causes are looked at,
# so that an event arriving meanwhile raises the line again.
sci:
    mov     $PM1_STS, %edx
    in      %dx, %ax
    test    $PWRBTN, %ax
    jnz     power_off
    mov     $GPE0_STS, %edx
    mov     $GPE_CPU, %al
    out     %al, %dx
    call    serve_hotplug
    mov     $LAPIC_EOI, %ecx
    xor     %eax, %eax
    call    apic_write
    add     $INTERRUPT_FRAME, %esp
    jmp     idle

power_off:
    mov     $PWRBTN, %eax
    out     %ax, %dx
    call    lock_console
    mov     $line, %edi
    say     "power button: off"
    call    print_line
    mov     $PM1_CNT, %edx
    mov     $SLP_EN, %eax
    out     %ax, %dx
    jmp     halt_for_ever

# Told to stop by the boot CPU; %ebx and %ebp are as they were in idle.
stop:
    movl    $STOPPED, cpu_state(, %ebx, 4)
halt_for_ever:
    cli
    hlt
    jmp     halt_for_ever

spurious:                               # takes no EOI, SDM vol. 3A 11.9
    add     $INTERRUPT_FRAME, %esp
    jmp     idle

# Serve every slot with a pending event, lowest first.
serve_hotplug:
    xor     %ebx, %ebx
    call    select_cpu
    mov     $CPUHP_COMMAND, %edx
    mov     $COMMAND_NEXT, %al
    out     %al, %dx
    mov     $CPUHP_FLAGS, %edx
    in      %dx, %al
    test    $FLAG_INSERT | FLAG_REMOVE, %al
    jz      1f
    mov     %eax, %ecx
    mov     $CPUHP_DATA, %edx
    in      %dx, %eax
    mov     %eax, %ebx                  # its slot, now selected
    mov     $insert_cpu, %eax
    test    $FLAG_INSERT, %cl
    jnz     2f
    mov     $remove_cpu, %eax
2:  call    *%eax
    jmp     serve_hotplug
1:  ret

# Slot %ebx has a new CPU.
insert_cpu:
    mov     $FLAG_INSERT, %al
    call    write_flags
    cmp     cpu_count, %ebx
    jae     3f
    cmpl    $ONLINE, cpu_state(, %ebx, 4)
    je      1f                          # was there already when we looked at boot
    call    start_cpu
    jnz     2f
1:  mov     $OST_DEVICE_CHECK, %eax
    mov     $OST_SUCCESS, %ecx
    jmp     write_ost
2:  mov     $OST_INSERTION, %eax
    mov     $OST_DRIVER_LOAD_FAILURE, %ecx
    jmp     write_ost
3:  mov     $OST_INSERTION, %eax
    mov     $OST_INSERT_NOT_SUPPORTED, %ecx
    jmp     write_ost

# The machine asks for the CPU in slot %ebx back.
remove_cpu:
    mov     $FLAG_REMOVE, %al
    call    write_flags
    cmp     cpu_count, %ebx
    jae     4f
    cmp     %ebp, cpu_ids(, %ebx, 4)
    je      3f
    mov     $OST_EJECT_REQUEST, %eax
    mov     $OST_EJECT_IN_PROGRESS, %ecx
    call    write_ost
    cmpl    $STARTED, cpu_state(, %ebx, 4)
    je      2f                          # so slow that we have given it up
    cmpl    $ONLINE, cpu_state(, %ebx, 4)
    jne     1f                          # never came up: nothing to stop
    movl    $STOPPING, cpu_state(, %ebx, 4)
    mov     cpu_ids(, %ebx, 4), %edx
    mov     $ICR_FIXED | VECTOR_STOP, %eax
    call    send_ipi
    mov     $STOPPING, %eax
    mov     $2 * PM_TMR_HZ, %esi
    call    wait_while
    jne     1f
    mov     $STOPPING, %eax             # it stays, unless it has just stopped
    mov     $ONLINE, %ecx
    lock cmpxchg %ecx, cpu_state(, %ebx, 4)
    je      2f
1:  movl    $OFFLINE, cpu_state(, %ebx, 4)
    mov     $text_offline, %esi
    call    say_about_cpu
    mov     $FLAG_EJECT, %al
    call    write_flags
    mov     $OST_EJECT_REQUEST, %eax
    mov     $OST_SUCCESS, %ecx
    jmp     write_ost
2:  mov     $text_did_not_stop, %esi
    call    say_about_cpu
    mov     $OST_EJECT_REQUEST, %eax
    mov     $OST_DEVICE_BUSY, %ecx
    jmp     write_ost
3:  mov     $text_refused, %esi
    call    say_about_cpu
4:  mov     $OST_EJECT_REQUEST, %eax
    mov     $OST_EJECT_NOT_SUPPORTED, %ecx
    jmp     write_ost

# Hot-plug block, slot %ebx. Each keeps %ebx.
select_cpu:
    mov     $CPUHP_SELECTOR, %edx
    mov     %ebx, %eax
    out     %eax, %dx
    ret

write_flags:                            # %al
    mov     $CPUHP_FLAGS, %edx
    out     %al, %dx
    ret

write_ost:                              # source event %eax, status %ecx
    push    %eax
    mov     $CPUHP_COMMAND, %edx
    mov     $COMMAND_EVENT, %al
    out     %al, %dx
    mov     $CPUHP_DATA, %edx
    pop     %eax
    out     %eax, %dx
    mov     $CPUHP_COMMAND, %edx
    mov     $COMMAND_STATUS, %al
    out     %al, %dx
    mov     $CPUHP_DATA, %edx
    mov     %ecx, %eax
    out     %eax, %dx
    ret

# --- Starting another CPU ---------------------------------------------------

# INIT, 10 ms, SIPI, 200 us, SIPI (SDM vol. 3A 9.4.4.1), then up to 2 s for its
# answer. Keeps %ebx, the slot. ZF set: it is ONLINE. ZF clear: we said it is not.
start_cpu:
    mov     cpu_ids(, %ebx, 4), %edx
    cmp     $XAPIC_MAX_ID, %edx
    jbe     4f
    cmpb    $0, x2apic                  # xAPIC would take the low 8 bits: another CPU
    je      2f
4:  movl    $STARTING, cpu_state(, %ebx, 4)
    mov     $ICR_INIT, %eax
    call    send_ipi
    mov     $STARTING, %eax
    mov     $PM_TMR_HZ / 100, %esi
    call    wait_while
    mov     cpu_ids(, %ebx, 4), %edx
    mov     $ICR_STARTUP, %eax
    call    send_ipi
    mov     $STARTING, %eax
    mov     $PM_TMR_HZ / 5000, %esi
    call    wait_while
    jne     1f
    mov     cpu_ids(, %ebx, 4), %edx
    mov     $ICR_STARTUP, %eax
    call    send_ipi
    mov     $STARTING, %eax
    mov     $2 * PM_TMR_HZ, %esi
    call    wait_while
1:  mov     $STARTING, %eax             # from here on it may not start any more:
    mov     $OFFLINE, %ecx              # a late one finds OFFLINE and halts
    lock cmpxchg %ecx, cpu_state(, %ebx, 4)
    je      2f
    mov     $STARTED, %eax              # it is printing; slow hosts take a while
    mov     $4 * PM_TMR_HZ, %esi
    call    wait_while
    cmpl    $ONLINE, cpu_state(, %ebx, 4)
    je      3f
2:  mov     $text_did_not_start, %esi
    call    say_about_cpu
    or      $1, %al                     # ZF clear
3:  ret

# Wait while cpu_state[%ebx] is %eax, at most %esi PM timer ticks (below 2^24).
# ZF set: it still is. The timer is a port, an exit each: look at it seldom.
wait_while:
    push    %eax
    mov     $PM_TMR, %edx
    in      %dx, %eax
    mov     %eax, %edi
1:  mov     $256, %ecx
    mov     (%esp), %eax
2:  cmp     %eax, cpu_state(, %ebx, 4)
    jne     3f
    pause
    dec     %ecx
    jnz     2b
    in      %dx, %eax
    sub     %edi, %eax
    and     $PM_TMR_MASK, %eax
    cmp     %esi, %eax
    jb      1b
    mov     (%esp), %eax
    cmp     %eax, cpu_state(, %ebx, 4)
3:  pop     %eax                        # leaves the flags
    ret

# Copied to TRAMPOLINE, where the start-up IPI makes a CPU begin, in real mode.
    .code16
trampoline:
    cli
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   trampoline_gdt_pointer - trampoline
    mov     %cr0, %eax
    and     $0x9fffffff, %eax           # CD and NW are set after INIT: caches on
    or      $1, %eax                    # PE
    mov     %eax, %cr0
    ljmpl   $CODE_SEG, $ap_start
    .balign 4
trampoline_gdt_pointer:
    .word   gdt_end - gdt - 1
    .long   gdt
trampoline_end:
    .code32

# No stack yet: which one is ours depends on our index.
ap_start:
    mov     $DATA_SEG, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    cld
    get_apic_id
    xor     %ebx, %ebx
2:  cmp     cpu_count, %ebx
    jae     halt_for_ever               # not a CPU we know of
    cmp     %ebp, cpu_ids(, %ebx, 4)
    je      3f
    inc     %ebx
    jmp     2b
3:  mov     $STARTING, %eax
    mov     $STARTED, %ecx
    lock cmpxchg %ecx, cpu_state(, %ebx, 4)
    jne     halt_for_ever               # the boot CPU has given us up
    lea     1(%ebx), %esp
    imul    $STACK_SIZE, %esp
    add     $stacks, %esp
    lidt    idt_pointer
    call    apic_enable
    push    %ebx
    call    report
    pop     %ebx
    movl    $ONLINE, cpu_state(, %ebx, 4)
    jmp     idle

# --- Local APIC -------------------------------------------------------------

# x2APIC when it is on already, or when some id needs it and the CPU has it.
choose_apic_mode:
    mov     $APIC_BASE_MSR, %ecx
    rdmsr
    test    $APIC_BASE_EXTD, %eax
    jnz     2f
    mov     $1, %eax
    cpuid
    test    $1 << 21, %ecx              # CPUID 1.ECX x2APIC
    jz      3f
    xor     %ecx, %ecx
1:  cmp     cpu_count, %ecx
    jae     3f
    cmpl    $XAPIC_MAX_ID, cpu_ids(, %ecx, 4)
    ja      2f
    inc     %ecx
    jmp     1b
2:  movb    $1, x2apic
3:  ret

apic_enable:
    cmpb    $0, x2apic
    je      1f
    mov     $APIC_BASE_MSR, %ecx
    rdmsr
    or      $APIC_BASE_EXTD, %eax
    wrmsr
1:  mov     $LAPIC_SVR, %ecx
    mov     $SVR_ENABLE | VECTOR_SPURIOUS, %eax

apic_write:                             # register at offset %ecx = %eax
    cmpb    $0, x2apic
    jne     1f
    mov     %eax, LAPIC(%ecx)
    ret
1:  shr     $4, %ecx
    add     $X2APIC_MSRS, %ecx
    xor     %edx, %edx
    wrmsr
    ret

send_ipi:                               # ICR bits %eax to APIC id %edx
    cmpb    $0, x2apic
    jne     2f
    shl     $24, %edx
    mov     %edx, LAPIC + LAPIC_ICR_HIGH
    mov     %eax, LAPIC + LAPIC_ICR
1:  pause
    testl   $ICR_PENDING, LAPIC + LAPIC_ICR
    jnz     1b
    ret
2:  mov     $X2APIC_MSRS + LAPIC_ICR / 16, %ecx
    wrmsr
    ret

# --- The report -------------------------------------------------------------

# One line a fact about the CPU that runs this; lines of two CPUs never mix.
report:
    call    lock_console
    call    begin_own_line
    say     "vendor "
    xor     %eax, %eax
    cpuid
    mov     %ebx, %eax
    stosl
    mov     %edx, %eax
    stosl
    mov     %ecx, %eax
    stosl
    call    print_line

    call    begin_own_line              # family, model, stepping: SDM vol. 2A CPUID, table 3-8
    mov     $1, %eax
    cpuid
    mov     %eax, %esi
    shr     $8, %eax
    and     $0xf, %eax
    mov     %eax, %ecx                  # base family
    cmp     $0xf, %eax
    jne     1f
    mov     %esi, %edx
    shr     $20, %edx
    and     $0xff, %edx
    add     %edx, %eax
1:  push    %ecx
    say     "family "
    call    put_decimal
    pop     %ecx
    mov     %esi, %eax
    shr     $4, %eax
    and     $0xf, %eax
    cmp     $6, %ecx
    je      2f
    cmp     $0xf, %ecx
    jne     3f
2:  mov     %esi, %edx
    shr     $12, %edx
    and     $0xf0, %edx
    add     %edx, %eax
3:  say     " model "
    call    put_decimal
    say     " stepping "
    mov     %esi, %eax
    and     $0xf, %eax
    call    put_decimal
    call    print_line

    mov     $0x80000000, %eax
    cpuid
    cmp     $0x80000004, %eax
    jb      2f
    mov     $brand, %edi
    mov     $0x80000002, %esi
1:  mov     %esi, %eax
    cpuid
    stosl
    mov     %ebx, %eax
    stosl
    mov     %ecx, %eax
    stosl
    mov     %edx, %eax
    stosl
    inc     %esi
    cmp     $0x80000004, %esi
    jbe     1b
    call    begin_own_line
    say     "brand "
    mov     $brand - 1, %esi            # brand + 48 is always 0
1:  inc     %esi
    cmpb    $' ', (%esi)
    je      1b
    call    put_string
    call    print_line
2:
    mov     $words, %esi
1:  call    report_word                 # moves %esi to the next
    cmp     $words_end, %esi
    jb      1b

    call    begin_own_line
    say     "online"
    call    print_line
    movl    $0, console_lock
    ret

# The CPUID word that the entry at %esi describes, if this CPU has its leaf.
WORD_LEAF       = 0
WORD_SUBLEAF    = 4
WORD_REGISTER   = 5                     # 0 to 3: EAX EBX ECX EDX
WORD_IF_SVM     = 6                     # 1: only on a CPU with SVM
WORD_NAME       = 7
report_word:
    mov     WORD_LEAF(%esi), %eax
    and     $0xffff0000, %eax           # 0, 0x40000000, 0x80000000, 0xc0000000: the
    cpuid                               # last leaf of each range is in its first one
    mov     WORD_LEAF(%esi), %ecx
    cmp     %ecx, %eax
    jb      2f
    xor     %ecx, %eax                  # a range that is not there answers with
    shr     $16, %eax                   # something of another
    jnz     2f
    cmpb    $0, WORD_IF_SVM(%esi)
    je      1f
    mov     $0x80000001, %eax
    cpuid
    test    $1 << 2, %ecx               # CPUID 8000_0001.ECX SVM, APM vol. 3 E.4.2
    jz      2f
1:  call    begin_own_line
    say     "word "
    mov     WORD_LEAF(%esi), %eax
    movzbl  WORD_SUBLEAF(%esi), %ecx
    cpuid
    mov     %eax, registers
    mov     %ebx, registers + 4
    mov     %ecx, registers + 8
    mov     %edx, registers + 12
    movzbl  WORD_REGISTER(%esi), %eax
    mov     registers(, %eax, 4), %eax
    add     $WORD_NAME, %esi
    call    put_string                  # leaves %esi after the name
    say     " "
    call    put_hex
    jmp     print_line
2:  add     $WORD_NAME, %esi
3:  cmpb    $0, (%esi)
    lea     1(%esi), %esi
    jne     3b
    ret

# --- Console ----------------------------------------------------------------

# 115200 8N1; the FIFO, where there is one, saves a status read for 15 of 16 bytes.
console_init:
    mov     $uart_setup, %esi
    xor     %eax, %eax
1:  lodsb
    mov     $COM1, %edx
    add     %eax, %edx
    lodsb
    out     %al, %dx
    cmp     $uart_setup_end, %esi
    jb      1b
    mov     $COM1 + 2, %edx
    in      %dx, %al
    and     $IIR_FIFO, %al
    cmp     $IIR_FIFO, %al
    jne     2f
    movl    $16, uart_depth
2:  ret

lock_console:
    mov     $1, %eax
1:  xchg    %eax, console_lock
    test    %eax, %eax
    jz      2f
    pause
    jmp     1b
2:  ret

say_about_cpu:                          # text %esi about the CPU in slot %ebx
    call    lock_console
    mov     cpu_ids(, %ebx, 4), %eax
    call    begin_line
    call    put_string
    call    print_line
    movl    $0, console_lock
    ret

begin_own_line:
    mov     %ebp, %eax
begin_line:                             # "cpu <%eax>: ", %edi = where to go on
    mov     $line, %edi
    say     "cpu "
    call    put_decimal
    say     ": "
    ret

put_string:                             # the text at %esi, and %esi behind it; keeps %eax
    push    %eax
1:  lodsb
    test    %al, %al
    jz      2f
    stosb
    jmp     1b
2:  pop     %eax
    ret

put_decimal:                            # %eax; keeps %esi
    mov     $10, %ecx
    xor     %edx, %edx
    div     %ecx
    push    %edx
    test    %eax, %eax
    jz      1f
    call    put_decimal
1:  pop     %eax
    add     $'0', %al
    stosb
    ret

put_hex:                                # %eax, 8 lower-case digits
    mov     $8, %ecx
    mov     %eax, %edx
1:  rol     $4, %edx
    mov     %edx, %eax
    and     $0xf, %eax
    mov     digits(%eax), %al
    stosb
    dec     %ecx
    jnz     1b
    ret

print_line:                             # from line to %edi; keeps %esi, %ebx
    push    %esi
    mov     $'\n', %al
    stosb
    mov     $line, %esi
1:  mov     uart_depth, %ecx
    mov     $COM1 + 5, %edx
2:  in      %dx, %al
    test    $LSR_THRE, %al
    jz      2b
    mov     $COM1, %edx
3:  lodsb
    out     %al, %dx
    cmp     %edi, %esi
    jae     4f
    dec     %ecx
    jnz     3b
    jmp     1b
4:  pop     %esi
    ret

# --- Constants --------------------------------------------------------------

    .section .rodata

uart_setup:                             # register, value
    .byte   1, 0                        # no interrupts
    .byte   3, 0x80, 0, 1, 1, 0, 3, 3   # divisor 1, then 8N1
    .byte   2, 7                        # FIFO on and empty
    .byte   4, 3                        # DTR, RTS
uart_setup_end:

digits:
    .ascii  "0123456789abcdef"
text_offline:
    .asciz  "offline"
text_did_not_start:
    .asciz  "did not start"
text_did_not_stop:
    .asciz  "did not stop"
text_refused:
    .asciz  "refused"

    .macro  word name, leaf, subleaf, register, if_svm=0
    .long   \leaf
    .byte   \subleaf, \register, \if_svm
    .asciz  "\name"
    .endm
EAX = 0
EBX = 1
ECX = 2
EDX = 3
words:
    word    1.ECX,        0x00000001, 0, ECX
    word    1.EDX,        0x00000001, 0, EDX
    word    6.EAX,        0x00000006, 0, EAX
    word    7.0.EBX,      0x00000007, 0, EBX
    word    7.0.ECX,      0x00000007, 0, ECX
    word    7.0.EDX,      0x00000007, 0, EDX
    word    7.1.EAX,      0x00000007, 1, EAX
    word    7.1.EDX,      0x00000007, 1, EDX
    word    7.2.EDX,      0x00000007, 2, EDX
    word    D.1.EAX,      0x0000000d, 1, EAX
    word    14.0.ECX,     0x00000014, 0, ECX
    word    24.0.EBX,     0x00000024, 0, EBX
    word    40000001.EAX, 0x40000001, 0, EAX
    word    80000001.ECX, 0x80000001, 0, ECX
    word    80000001.EDX, 0x80000001, 0, EDX
    word    80000007.EBX, 0x80000007, 0, EBX
    word    80000007.EDX, 0x80000007, 0, EDX
    word    80000008.EBX, 0x80000008, 0, EBX
    word    8000000A.EDX, 0x8000000a, 0, EDX, if_svm=1
    word    80000021.EAX, 0x80000021, 0, EAX
    word    80000022.EAX, 0x80000022, 0, EAX
    word    C0000001.EDX, 0xc0000001, 0, EDX
words_end:

    .balign 8
gdt:                                    # flat: base 0, limit 4 GiB, SDM vol. 3A 3.4.5
    .quad   0
    .quad   0x00cf9b000000ffff          # CODE_SEG
    .quad   0x00cf93000000ffff          # DATA_SEG
gdt_end:
gdt_pointer:
    .word   gdt_end - gdt - 1
    .long   gdt

    # 32-bit interrupt gates, SDM vol. 3A 6.11. The image starts at a multiple of
    # 64 KiB and is shorter, so its handlers share the upper half of their address.
    .macro  gate handler
    .word   \handler - start, CODE_SEG, 0x8e00, IMAGE_HIGH
    .endm
IMAGE_HIGH      = 0x10
    .balign 8
idt:
    .fill   VECTOR_SCI, 8, 0
    gate    sci
    gate    stop
    .fill   VECTOR_SPURIOUS - VECTOR_STOP - 1, 8, 0
    gate    spurious
idt_end:
idt_pointer:
    .word   idt_end - idt - 1
    .long   idt

# --- Variables --------------------------------------------------------------

    .data
    .balign 4
uart_depth:
    .long   1
cpu_count:
    .long   0
x2apic:
    .byte   0

    .bss
    .balign 16
    .lcomm  cpu_ids, 4 * MAX_CPUS
    .lcomm  cpu_state, 4 * MAX_CPUS
    .lcomm  console_lock, 4
    .lcomm  registers, 16
    .lcomm  brand, 49
    .lcomm  line, 128
    .balign 16
boot_stack:
    .skip   STACK_SIZE
boot_stack_top:
stacks:
    .skip   STACK_SIZE * MAX_CPUS
