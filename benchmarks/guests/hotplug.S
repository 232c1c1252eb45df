# The boot CPU sleeps until the ACPI interrupt, then serves the CPU hot-plug registers: it starts
# a new CPU by INIT and start-up IPI and ejects one it is asked for. A started CPU writes AP_PORT
# as its first instruction. 32-bit protected mode, flat at 0x100000; no iret, which some KVM back
# ends cannot emulate: the handler drops its frame and goes back to sleep.
# READY_PORT and AP_PORT are defined on the assembler's command line.

IMAGE           = 0x100000
STACK           = 0x80000
TRAMPOLINE      = 0x8000                # start-up IPI vector 8: Intel SDM vol. 3A, 9.4.4

LAPIC           = 0xfee00000            # Intel SDM vol. 3A, 11.4.1
LAPIC_EOI       = LAPIC + 0x0b0
LAPIC_SVR       = LAPIC + 0x0f0
LAPIC_ICR       = LAPIC + 0x300
LAPIC_ICR_HIGH  = LAPIC + 0x310
SVR_ENABLE      = 1 << 8
ICR_INIT        = 0x4500                # level assert: Intel SDM vol. 3A, 11.6.1
ICR_STARTUP     = 0x4600 | TRAMPOLINE >> 12

PIC1_MASK       = 0x21
PIC2_MASK       = 0xa1
IOAPIC_INDEX    = 0xfec00000
IOAPIC_DATA     = 0xfec00010
SCI_PIN_LOW     = 0x10 + 2 * 9          # redirection entry of pin 9
LEVEL_TRIGGERED = 1 << 15
SCI_VECTOR      = 0x40

GPE0_STS        = 0x620                 # ACPI 6.5, 4.8.4.1
GPE0_EN         = 0x628
GPE_CPU         = 1 << 2

FLAGS           = 0xcd8 + 4             # QEMU docs/specs/acpi_cpu_hotplug
COMMAND         = 0xcd8 + 5
DATA            = 0xcd8 + 8
NEXT_WITH_EVENT = 0
ARCH_ID         = 3
INSERT          = 1 << 1
REMOVE          = 1 << 2
EJECT           = 1 << 3

        .code32
start:
        movl    $STACK, %esp
        movl    $(IMAGE + trampoline - start), %esi
        movl    $TRAMPOLINE, %edi
        movl    $(trampoline_end - trampoline), %ecx
        rep movsb

        # An interrupt gate for the SCI (Intel SDM vol. 3A, 6.11); the table is otherwise empty.
        movl    $(IMAGE + idt - start + 8 * SCI_VECTOR), %edi
        movl    $(IMAGE + on_sci - start), %eax
        movw    %ax, (%edi)
        movw    $0x08, 2(%edi)
        movw    $0x8e00, 4(%edi)
        shrl    $16, %eax
        movw    %ax, 6(%edi)
        lidtl   IMAGE + idt_register - start

        movb    $0xff, %al              # the I/O APIC does it, not the PICs
        outb    %al, $PIC1_MASK
        outb    %al, $PIC2_MASK
        movl    $(SVR_ENABLE | 0xff), LAPIC_SVR
        movl    $(SCI_PIN_LOW + 1), IOAPIC_INDEX
        movl    $0, IOAPIC_DATA         # to APIC id 0
        movl    $SCI_PIN_LOW, IOAPIC_INDEX
        movl    $(LEVEL_TRIGGERED | SCI_VECTOR), IOAPIC_DATA
        movw    $GPE0_EN, %dx
        movb    $GPE_CPU, %al
        outb    %al, %dx
        outb    %al, $READY_PORT

sleep:
        movl    $STACK, %esp
        sti
        hlt
        jmp     sleep

on_sci:
        movw    $GPE0_STS, %dx
        movb    $GPE_CPU, %al
        outb    %al, %dx
scan:
        movw    $COMMAND, %dx
        movb    $NEXT_WITH_EVENT, %al
        outb    %al, %dx
        movw    $FLAGS, %dx
        inb     %dx, %al
        testb   $INSERT, %al
        jnz     insert
        testb   $REMOVE, %al
        jnz     remove
        movl    $0, LAPIC_EOI
        jmp     sleep

insert:
        movb    $INSERT, %al            # noted
        outb    %al, %dx
        movw    $COMMAND, %dx
        movb    $ARCH_ID, %al
        outb    %al, %dx
        movw    $DATA, %dx
        inl     %dx, %eax
        shll    $24, %eax
        movl    %eax, LAPIC_ICR_HIGH
        movl    $ICR_INIT, LAPIC_ICR
        movl    $ICR_STARTUP, LAPIC_ICR
        jmp     scan

remove:
        movb    $REMOVE, %al            # noted
        outb    %al, %dx
        movb    $EJECT, %al
        outb    %al, %dx
        jmp     scan

        .code16
trampoline:
        outb    %al, $AP_PORT
        cli
        hlt
        jmp     trampoline
trampoline_end:

        .code32
        .balign 8
idt_register:
        .word   idt_end - idt - 1
        .long   IMAGE + idt - start
        .balign 8
idt:
        .skip   8 * (SCI_VECTOR + 1)
idt_end:
