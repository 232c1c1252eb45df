# A firmware of 64 kB that executes CPUID for a table of leaves and writes each answer, 16 bytes
# (eax, ebx, ecx, edx), to the debug console (port 0xe9), then ends QEMU (port 0xf4).
.code16
start:
    cli
    xor %ax, %ax
    mov %ax, %ss
    mov %ax, %es
    mov $0x7c00, %sp
    push %cs
    pop %ds
    mov $table, %si
next:
    movl (%si), %eax
    movl 4(%si), %ecx
    cmpl $0xffffffff, %ecx
    je done
    cpuid
    movl %eax, %es:0x1000
    movl %ebx, %es:0x1004
    movl %ecx, %es:0x1008
    movl %edx, %es:0x100c
    mov $0x1000, %bx
    mov $16, %cx
byte:
    movb %es:(%bx), %al
    outb %al, $0xe9
    inc %bx
    loop byte
    add $8, %si
    jmp next
done:
    mov $0xf4, %dx
    outb %al, %dx
halt:
    hlt
    jmp halt
table: # leaf, subleaf
    .long 4, 0, 4, 1, 4, 2, 4, 3, 4, 4
    .long 0x80000005, 0, 0x80000006, 0
    .long 0x8000001d, 0, 0x8000001d, 1, 0x8000001d, 2, 0x8000001d, 3, 0x8000001d, 4
    .long 0, 0xffffffff
.org 0xfff0
    ljmp $0xf000, $start
.org 0x10000
