# A program whose every taken branch can be written down by hand: test_step.py does.
        .bss
flag:   .quad   0
        .section .note.GNU-stack, "", @progbits
        .text
        .globl  _start
_start: jmp     begin                   # the first instruction of the process is a branch
        ud2
begin:  call    here                    # CALL +0: none
here:   pop     %rax
        mov     $2, %ecx
again:  loop    again                   # taken once
        jrcxz   empty
        ud2
empty:  xor     %eax, %eax
        rep stosb                       # ECX = 0
        jz      successor               # taken, but reads as not taken
successor:
        jnz     unreached
plus0:  jmp     next                    # to the next instruction, all the same
next:   lea     function(%rip), %rax
icall:  call    *%rax
back:   mov     $39, %eax
        syscall                         # no branch
        mov     $13, %eax               # rt_sigaction(SIGUSR1, action, 0, 8)
        mov     $10, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        mov     $39, %eax
        syscall
        mov     %eax, %edi
        mov     $10, %esi
        mov     $62, %eax
        syscall                         # kill(getpid(), SIGUSR1): the handler is entered here without a branch
        cmpq    $1, flag(%rip)
check:  je      good
unreached:
        ud2
good:   xor     %edi, %edi
        mov     $231, %eax
        syscall

function:
        lea     pointer(%rip), %r9
ijmp:   jmp     *(%r9)
target: ret

handler:
        incq    flag(%rip)
hret:   ret                             # to the restorer, as the frame says
restorer:
        mov     $15, %eax
        syscall                         # rt_sigreturn: no branch

        .data
        .balign 8
pointer:        .quad target
action:         .quad handler, 0x04000000, restorer, 0
