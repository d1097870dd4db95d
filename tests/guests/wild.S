# Branches to where no code can run: each is taken, then its target faults, and the handler goes on elsewhere.
        .text
        .globl  _start
_start: mov     $13, %eax               # rt_sigaction(SIGSEGV, action, 0, 8)
        mov     $11, %edi
        lea     action(%rip), %rsi
        xor     %edx, %edx
        mov     $8, %r10d
        syscall
        xor     %ebx, %ebx
        lea     1f(%rip), %r12
        xor     %eax, %eax
        call    *%rax                   # to address zero
        ud2
1:      inc     %ebx
        pop     %rax
        lea     2f(%rip), %r12
        lea     data(%rip), %rax
        jmp     *%rax                   # into data that may not be executed
        ud2
2:      inc     %ebx
        lea     3f(%rip), %r12
        push    $4096
        ret                             # to an unmapped page
3:      inc     %ebx
        lea     4f(%rip), %r12
        xor     %ecx, %ecx
        mov     (%rcx), %eax            # a fault without a branch, in straight code
        ud2
4:      inc     %ebx
        lea     5f(%rip), %r12
        test    %ecx, %ecx
        jz      near_data               # a conditional branch that faults
        ud2
5:      inc     %ebx
        lea     6f(%rip), %r12
        lea     data(%rip), %rax
        movabs  $0x8000000000000000, %rdx
        jmp     7f
7:      mov     (%rdx), %eax            # not canonical
        ud2
6:      inc     %ebx
        mov     %ebx, %edi
        mov     $231, %eax
        syscall

handler:
        mov     %r12, 168(%rdx)         # uc_mcontext.gregs[REG_RIP]
        ret
restorer:
        mov     $15, %eax
        syscall

        .data
        .balign 8
action: .quad   handler, 0x04000004, restorer, 0        # SA_RESTORER | SA_SIGINFO
data:   .fill   8, 1, 0x90
        .set    near_data, data
        .section .note.GNU-stack, "", @progbits
