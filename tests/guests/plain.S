# An x86-64 ELF image without a header of any loader: 64-bit code from the first instruction.
        .globl  start
start:  mov     $9, %al
        out     %al, $0xf4
1:      jmp     1b
        .section .note.GNU-stack, "", @progbits
