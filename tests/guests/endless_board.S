/* Ring 0 on the board: counts for ever, and never sleeps. */
        .text
        .globl _start
_start: inc     %rax
        jmp     _start
