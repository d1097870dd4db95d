# Far transfers within one ring: the processor records them as OTHER.
        .text
        .globl  _start
_start: xor     %ebx, %ebx
        push    $0x33
        lea     1f(%rip), %rax
        push    %rax
        lretq
1:      inc     %ebx
        lea     2f(%rip), %rax
        mov     %rax, pointer(%rip)
        rex.w ljmp *pointer(%rip)
        ud2
2:      inc     %ebx
        lea     returns(%rip), %rax
        mov     %rax, pointer(%rip)
        rex.w lcall *pointer(%rip)
        mov     %rsp, %rax
        mov     %ss, %ecx
        push    %rcx
        push    %rax
        push    $0x202
        push    $0x33
        lea     3f(%rip), %rax
        push    %rax
        iretq
3:      inc     %ebx
        mov     %ebx, %edi
        mov     $231, %eax
        syscall
returns:
        inc     %ebx
        lretq
        .data
        .balign 16
pointer:        .quad 0
        .word   0x33
        .section .note.GNU-stack, "", @progbits
