/* Ring 0 on the board: counts for ever, in a memory full of what no compressor makes smaller. */
        .text
        .globl _start
_start: inc     %rax
        jmp     _start
        .data
        .incbin "random"
