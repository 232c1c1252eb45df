# Writes PORT for ever; real mode, flat at 0x7c00. PORT is defined on the assembler's command line.

        .code16
        movw    $PORT, %dx
again:
        outb    %al, %dx
        jmp     again
