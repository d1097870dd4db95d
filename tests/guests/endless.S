# Never ends by itself.
        .text
        .globl  _start
_start: mov     $1000, %ecx
1:      loop    1b
        jmp     _start
        .section .note.GNU-stack, "", @progbits
