# Never ends by itself.
        .text
        .globl  _start
_start: jmp     _start
        .section .note.GNU-stack, "", @progbits
