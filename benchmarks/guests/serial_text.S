# Writes a line of text to COM1 for ever; real mode, flat at 0x7c00.

COM1            = 0x3f8

        .code16
start:
        movw    $COM1, %dx
line:
        movw    $(0x7c00 + text - start), %si
        movw    $(text_end - text), %cx
next:
        lodsb
        outb    %al, %dx
        loop    next
        jmp     line

text:   .ascii  "[    0.000000] a line of text as long as those of a boot log are\n"
text_end:
