# Every shape of branch, and every shape of code that is none, in one static program without a C library.
# Each section leaves a sum in %rbx; the exit status is its low byte, so that a wrong path shows there too.

        .macro  exit_group
        mov     $231, %eax
        syscall
        .endm

        .bss
        .lcomm  buffer, 8192
        .data
        .balign 8
pointer:        .quad   0
table:          .quad   case0, case1, case2
text16:         .ascii  "abcdefghijklmno\0"

        .text
        .globl  _start
_start: xor     %ebx, %ebx

# --- string instructions: repeated, but no branches --------------------------------------------------------------------------
strings:
        lea     text16(%rip), %rsi
        lea     buffer(%rip), %rdi
        xor     %ecx, %ecx
        rep movsb                       # no iteration at all
        rep stosb
        mov     $16, %ecx
        rep movsb
        mov     $300, %ecx
        mov     $7, %al
        rep stosb
        lea     buffer+4090(%rip), %rdi # over a page end
        mov     $5, %ecx
        rep stosq
        lea     text16(%rip), %rdi
        mov     $'h', %al
        mov     $100, %ecx
        repne scasb                     # ends by the flag, not by the count
        jne     fail
        lea     text16(%rip), %rsi
        lea     buffer(%rip), %rdi
        mov     $16, %ecx
        repe cmpsb
        jne     fail
        mov     $3, %ecx
1:      movsb
        lodsb
        loop    1b
        std
        mov     $4, %ecx
        rep stosb
        cld

# --- LOOP, LOOPE, LOOPNE, JRCXZ, JECXZ -----------------------------------------------------------------------------------------
loops:  mov     $5, %ecx
1:      inc     %ebx
        loop    1b
        mov     $4, %ecx
2:      cmp     $0, %ecx                # ZF = 0: leaves at once
        loope   2b
        mov     $4, %ecx
3:      cmp     $2, %ecx                # goes on until ZF
        loopne  3b
        mov     $6, %ecx
4:      loop    4b                      # to itself
        jrcxz   5f                      # taken
        ud2
5:      jecxz   6f                      # 67 E3, taken
        ud2
6:      mov     $1, %ecx
        jrcxz   trap                    # not taken
        jecxz   trap
        movabs  $0x100000000, %rcx
        jrcxz   trap                    # RCX is not zero, ECX is
        jecxz   7f
        ud2
        jmp     7f
trap:   ud2
7:      mov     $2, %ecx
        addr32 loop .                   # ECX counts

# --- near calls and returns ----------------------------------------------------------------------------------------------------
calls:  call    1f                      # CALL +0: no branch
1:      pop     %rax
        call    leaf
        push    $1
        push    $2
        call    pops                    # RET imm16
        lea     leaf(%rip), %rax
        call    *%rax
        mov     %rax, pointer(%rip)
        call    *pointer(%rip)
        lea     pointer(%rip), %r9
        call    *(%r9)                  # REX prefix
        lea     2f(%rip), %rax
        call    *%rax                   # an indirect call to the next instruction is a branch
2:      pop     %rax
        lea     3f(%rip), %rax
        push    %rax
        ret                             # so is a return to it
3:      lea     4f(%rip), %rax
        push    %rax
        repz ret
        nop
4:      .byte   0xf2                    # BND CALL
        call    bound
        push    $0
        push    $6
        call    recurse
        add     $16, %rsp

# --- jumps ---------------------------------------------------------------------------------------------------------------------
jumps:  jmp     1f                      # EB 00: to the next instruction, a branch all the same
1:      .byte   0xe9, 0, 0, 0, 0        # E9 +0
        jmp     2f
        ud2
2:      .byte   0xe9                    # a near jump over four bytes
        .long   4
        ud2
        ud2
        lea     3f(%rip), %rax
        jmp     *%rax
        ud2
3:      lea     4f(%rip), %rax
        mov     %rax, pointer(%rip)
        jmp     *pointer(%rip)
        ud2
4:      xor     %r12d, %r12d
5:      lea     table(%rip), %rax
        jmp     *(%rax,%r12,8)
case0:  add     $1, %ebx
        jmp     6f
case1:  add     $2, %ebx
        jmp     6f
case2:  add     $3, %ebx
6:      inc     %r12d
        cmp     $3, %r12d
        jne     5b
        lea     7f(%rip), %rax
        .byte   0x3e, 0xff, 0xe0        # NOTRACK JMP *%rax
        ud2
7:      .byte   0xf2                    # BND JMP
        jmp     8f
        ud2
8:      .byte   0xf2
        jz      9f
        ud2
9:      .byte   0x2e                    # branch hints
        jnz     fail
        .byte   0x3e
        jz      conditions

# --- conditional branches ------------------------------------------------------------------------------------------------------
conditions:
        xor     %eax, %eax              # ZF, PF
        jz      1f                      # taken, but to the next instruction: reads as not taken
1:      jnz     2f                      # not taken, to the next instruction
2:
        .irp    cc, o, no, b, nb, z, nz, be, nbe, s, ns, p, np, l, nl, le, nle
        xor     %eax, %eax
        j\cc    3f                      # short
        inc     %ebx
3:      cmp     $1, %eax
        {disp32} j\cc 4f                # near
        inc     %ebx
4:
        .endr
        jmp     near_conditions
        .balign 16
near_conditions:
        mov     $16, %ecx
1:      cmp     $5, %ecx
        {disp32} jl 2f
        {disp32} je 3f
        {disp32} jg 4f
        ud2
2:      inc     %ebx
        jmp     5f
3:      add     $2, %ebx
        jmp     5f
4:      add     $3, %ebx
5:      dec     %ecx
        {disp32} jnz 1b

# --- code over page ends -------------------------------------------------------------------------------------------------------
        jmp     page1
        .balign 4096
        .skip   4086, 0xcc
page1:  xor     %eax, %eax              # straight code, one instruction over the page end
        inc     %ebx
        mov     $0x11223344, %eax
        movabs  $0x1122334455667788, %rax
        inc     %eax
        jz      fail
        jmp     page2
        .balign 4096
        .skip   4090, 0xcc
page2:  mov     $1, %eax
        .byte   0x83                    # TEST would end at the page end: CMP eax, 0 lies across it
        .byte   0xf8, 0x00
        jz      fail
        jmp     page3
        .balign 4096
        .skip   4095, 0xcc
page3:  {disp32} jmp page4              # the jump itself lies over the page end
        .balign 4096
        .skip   4093, 0xcc
page4:  {disp32} jz page4               # a conditional one
        nop
        call    page5
        jmp     page6
        .balign 4096
        .skip   4092, 0xcc
page5:  inc     %ebx                    # a return is the last byte of its page
        nop
        ret
page5_next:
        ud2
        .balign 4096
        .skip   4094, 0xcc
page6:  jmp     page7                   # EB 00 ends the page; its target begins the next
page7:  nop

# --- long straight runs ----------------------------------------------------------------------------------------------------------
runs:   .fill   700, 1, 0x90
        inc     %ebx
        jmp     1f
        .fill   600, 4, 0x00401f0f
1:      .fill   513, 1, 0x90
        jz      fail
        .fill   512, 1, 0x90
        jmp     2f
2:

# --- what the engine must stop for -----------------------------------------------------------------------------------------------
stops:  mov     $39, %eax
        syscall                         # getpid: the block ends, no branch
        mov     $39, %eax
        syscall
        xor     %r13d, %r13d
1:      mov     $39, %eax
        syscall
        inc     %r13d
        cmp     $5, %r13d
        jne     1b
        mov     %ebx, %r14d
        xor     %eax, %eax
        cpuid
        rdtsc
        mov     %r14d, %ebx
        mov     $39, %eax
        syscall
        jmp     done

leaf:   inc     %ebx
        ret
pops:   inc     %ebx
        ret     $16
bound:  .byte   0xf2
        ret
recurse:
        mov     8(%rsp), %rax
        test    %rax, %rax
        jz      1f
        dec     %rax
        push    %rax
        call    recurse
        add     $8, %rsp
        inc     %ebx
1:      ret

fail:   ud2
done:   movzbl  %bl, %edi
        exit_group
        .section .note.GNU-stack, "", @progbits
