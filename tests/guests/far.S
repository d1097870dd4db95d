# Far transfers within one ring: the processor records them as OTHER.
        .text
        .globl  _start
_start: xor     %ebx, %ebx
        push    $0x33
        lea     1f(%rip), %rax
        push    %rax
lret:   lretq
after_lret:
1:      inc     %ebx
        lea     2f(%rip), %rax
        mov     %rax, pointer(%rip)
ljmp:   rex.w ljmp *pointer(%rip)
        ud2
after_ljmp:
2:      inc     %ebx
        lea     returns(%rip), %rax
        mov     %rax, pointer(%rip)
lcall:  rex.w lcall *pointer(%rip)
after_lcall:
        mov     %rsp, %rax
        mov     %ss, %ecx
        push    %rcx
        push    %rax
        push    $0x202
        push    $0x33
        lea     3f(%rip), %rax
        push    %rax
iret:   iretq
after_iret:
3:      inc     %ebx
        mov     %ebx, %edi
        mov     $231, %eax
        syscall
returns:
        inc     %ebx
returned:
        lretq
        .data
        .balign 16
pointer:        .quad 0
        .word   0x33
        .section .note.GNU-stack, "", @progbits
