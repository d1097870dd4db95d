# A kernel of two rings on flat.S, in which each way from one to the other is taken once, and then a few thousand times.
# The first letter of the command line's last word says what is done: "once", "many" times, an "nmi", a "triple" fault,
# or once with the records of the "kernel" or of the "user" alone.
# A label f_X stands at a branch, t_X where it leads.

        .set    USER_STACK, 0x600000
        .set    ABSENT, 0x8000000000    # no page is there

        .macro  gate vector, handler, rights, stack
        mov     $\handler, %rax
        mov     %ax, idt + 16 * \vector
        movw    $8, idt + 16 * \vector + 2
        movb    $\stack, idt + 16 * \vector + 4
        movb    $\rights, idt + 16 * \vector + 5
        shr     $16, %rax
        mov     %ax, idt + 16 * \vector + 6
        .endm

        .macro  msr index, high, low
        mov     $\index, %ecx
        mov     \low, %eax
        mov     $\high, %edx
        wrmsr
        .endm

        .text
        .globl  main, handle
handle: ud2                             # no vector leads here
main:   mov     16(%rsi), %eax          # the command line: the letter after its last blank
1:      mov     (%rax), %cl
        inc     %rax
        cmp     $' ', %cl
        jne     2f
        mov     (%rax), %bl
2:      test    %cl, %cl
        jne     1b
        mov     %bl, what
        mov     $1, %r15d
        cmp     $'m', %bl
        jne     3f
        mov     $500, %r15d
3:
        gate    2, nmi, 0x8e, 1
        gate    3, breakpoint, 0xee, 0
        gate    6, invalid, 0x8e, 0
        gate    8, double, 0x8e, 1
        gate    13, protection, 0x8e, 0
        gate    14, page, 0x8e, 0
        cmpb    $'t', what
        jne     4f
        movb    $0, idt + 16 * 8 + 5    # no gate for a double fault
4:
        msr     0xc0000081, 0x00200008, $0
        msr     0xc0000082, 0, $entry
        msr     0xc0000084, 0, $0x200      # IF
        mov     $0x7f0007, %ebx         # every kind, both rings
        cmpb    $'k', what
        jne     5f
        mov     $0x7f0003, %ebx
5:      cmpb    $'u', what
        jne     6f
        mov     $0x7f0005, %ebx
6:      msr     0x14ce, 0, %ebx
        push    $0x2b
        push    $USER_STACK
        push    $2
        push    $0x33
        push    $user
f_iret: iretq

# Ring 3.
user:   xor     %ebx, %ebx
f_jump: jmp     t_jump
        ud2
t_jump: lea     t_indirect(%rip), %rax
f_indirect:
        jmp     *%rax
        ud2
t_indirect:
f_call: call    leaf
t_ret:  mov     $leaf, %eax
f_icall:
        call    *%rax
t_iret: cmp     $1, %ebx
        je      never
        test    %ebx, %ebx
f_cond: jz      t_cond
never:  ud2
t_cond: mov     $1, %edi
f_syscall:
        syscall
t_sysret:
f_int3: int3
t_int3:
f_ud:   ud2
t_ud:   mov     $ABSENT, %rax
f_page: mov     (%rax), %ecx
t_page:
f_gate: int     $8                      # a gate that ring 3 may not use
t_gate:
f_priv: hlt                             # an instruction that ring 3 may not use
t_priv: push    $0x33
        push    $t_far
f_far:  lretq
t_far:
f_ljmp: ljmp    *far_pointer
        ud2
t_ljmp: mov     $3, %ecx
f_loop: loop    f_loop
        mov     $0, %edi
        dec     %r15d
f_back: jnz     user
f_last: syscall

leaf:   nop
f_ret:  ret

# Ring 0. RDI: 0 ends, 1 comes back.
entry:  test    %edi, %edi
f_leaving:
        jz      t_leaving
        cmpb    $'n', what
        je      1f
f_sysret:
        sysretq
1:      mov     $0xfee00000, %eax       # an NMI to itself
        movl    $0x44400, 0x300(%rax)
f_toblock:
        jmp     t_toblock
t_toblock:                              # where the block ends, the NMI comes
        nop
f_sysret2:
        sysretq

t_leaving:
        mov     %rsp, %rbx
        mov     $ABSENT + 4096, %rsp
f_double:
        push    %rax                    # a page fault that finds no stack either
        ud2

nmi:    incl    count
f_nmi_back:
        iretq
breakpoint:
f_int3_back:
        iretq
invalid:
        addq    $2, (%rsp)
f_ud_back:
        iretq
protection:
        mov     (%rsp), %rcx            # the error code: a gate's, or 0
        test    $2, %cl                 # QEMU has another number there, but this bit too
f_which:
        jnz     t_which
        test    %rcx, %rcx
f_wrong:
        jnz     wrong
        addq    $1, 8(%rsp)
        add     $8, %rsp
f_priv_back:
        iretq
t_which:
        addq    $2, 8(%rsp)
        add     $8, %rsp
f_gate_back:
        iretq
page:   cmpq    $4, (%rsp)              # a read of ring 3 where nothing is
f_page_wrong:
        jne     wrong
        addq    $2, 8(%rsp)
        add     $8, %rsp
f_page_back:
        iretq
double: mov     %rbx, %rsp
        xor     %eax, %eax              # LBRs off: the records end here
        xor     %edx, %edx
        mov     $0x14ce, %ecx
        wrmsr
        mov     $3, %edi
        jmp     finish
wrong:  mov     $5, %edi
        jmp     finish

        .data
        .balign 8
far_pointer:
        .long   t_ljmp
        .word   0x33
what:   .byte   0
        .balign 4
        .globl  count
count:  .long   0
        .section .note.GNU-stack, "", @progbits
