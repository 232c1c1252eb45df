# Guests for test_serial.py: flat, real mode, at 0x7c00. GUEST says which one. (In protected mode
# a KVM without VMX and SVM does not finish iret.)

        .set    IRQ4, 0x24 * 4          # its vector
        .set    COM1, 0x3f8
        .set    IER, COM1 + 1
        .set    IIR, COM1 + 2
        .set    FCR, COM1 + 2
        .set    MCR, COM1 + 4
        .set    LSR, COM1 + 5
        .set    EXIT, 0xf4
        .set    END, 4                  # the byte that ends an echo: Ctrl-D

        .macro  put port, value
        movw    $\port, %dx
        movb    $\value, %al
        outb    %al, %dx
        .endm
        .macro  get port
        movw    $\port, %dx
        inb     %dx, %al
        .endm
        # Sends al, and leaves when it was END.
        .macro  echo
        movw    $COM1, %dx
        outb    %al, %dx
        cmpb    $END, %al
        jne     1f
        outb    %al, $EXIT
1:
        .endm

        .code16
        .globl  _start
_start: movw    $0x7000, %sp
        .if GUEST == 0                  # polls
poll:   get     LSR
        testb   $0x10, %al
        jz      2f
        put     COM1, '!'               # a break
        get     COM1
        jmp     poll
2:      testb   $1, %al
        jz      poll
        get     COM1
        echo
        jmp     poll
        .endif

        .if GUEST == 1                  # slow: as 0, and all the time in the world between
slow:   get     LSR
        testb   $1, %al
        jz      slow
        get     COM1
        echo
        movw    $500, %cx
        loop    .
        jmp     slow
        .endif

        .if GUEST >= 2                  # those with interrupts
        movw    $handler, IRQ4
        movw    %cs, IRQ4 + 2
        put     0x20, 0x11              # 8259A: vectors from 0x20, only IRQ 4
        put     0x21, 0x20
        put     0x21, 0x04
        put     0x21, 0x01
        put     0x21, 0xef
        put     FCR, 0x81
        put     MCR, 0x0b
        .if GUEST == 2
        put     IER, 0x01
        put     COM1, '>'               # what came before was cleared with the FIFO
        .else
        movw    $text, %si
        put     IER, 0x02               # nothing was sent yet: it is empty, and says so
        .endif
        sti
wait:   hlt
        jmp     wait
handler:
        .if GUEST == 2                  # echo, as a driver does it
cause:  get     IIR
        testb   $1, %al
        jnz     done
more:   get     LSR
        testb   $1, %al
        jz      cause
        get     COM1
        echo
        jmp     more
        .endif
        .if GUEST == 3                  # sends a byte for each interrupt
        get     IIR
        cmpb    $0xc2, %al
        jne     done
        .endif
        .if GUEST >= 3                  # 4: and never reads IIR
        lodsb
        testb   %al, %al
        jz      sent
        movw    $COM1, %dx
        outb    %al, %dx
        .endif
done:   put     0x20, 0x20              # end of interrupt
        iret
sent:   put     EXIT, 1
text:   .asciz  "sent by interrupts, a byte at a time\n"
        .endif

        .if GUEST < 0                   # prints to the port -GUEST
        put     -GUEST, 'o'
        put     -GUEST, 'k'
        put     EXIT, 0
        .endif
