# The start of a bare-metal test image in the shape of kvm-unit-tests: a multiboot header, 32-bit protected mode, then
# 64-bit code on page tables and descriptors of its own, a task with stacks, and exceptions that end in C.

        .set    MAGIC, 0x1badb002

        .section .init, "ax"
        .code32
        .long   MAGIC, 0, -MAGIC
        .globl  start
start:  mov     %ebx, information
        mov     %eax, loader
        mov     $stack_top, %esp
        mov     $0xc0000101, %ecx       # IA32_GS_BASE, while still in 32-bit mode
        lea     -4096(%esp), %eax
        xor     %edx, %edx
        wrmsr
        call    long_mode               # a push on the loader's stack segment
        ljmpl   $8, $start64

long_mode:
        lgdt    gdt_pointer
        mov     $0x10, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        mov     %cr4, %eax
        or      $0x620, %eax            # PAE, OSFXSR, OSXMMEXCPT
        mov     %eax, %cr4
        mov     $level4, %eax
        mov     %eax, %cr3
        mov     $0xc0000080, %ecx       # EFER: LME, SCE, NXE
        rdmsr
        or      $0x901, %eax
        wrmsr
        mov     %cr0, %eax
        or      $0x80010001, %eax       # PG, WP, PE
        mov     %eax, %cr0
        ret

        .code64
start64:
        xor     %eax, %eax
        mov     %eax, %fs
        mov     $tss, %rax              # the descriptor's base, in its four places
        mov     %ax, gdt_tss + 2
        shr     $16, %rax
        mov     %al, gdt_tss + 4
        mov     %ah, gdt_tss + 7
        mov     $0x38, %eax
        ltr     %ax
        mov     $vectors, %rsi          # the IDT: gates to `vectors`, 16 bytes apart
        mov     $idt, %rdi
        mov     $32, %ecx
1:      mov     %rsi, %rax
        mov     %ax, (%rdi)
        movw    $8, 2(%rdi)
        movw    $0x8e00, 4(%rdi)
        shr     $16, %rax
        mov     %ax, 6(%rdi)
        add     $16, %rsi
        add     $16, %rdi
        loop    1b
        movb    $0xee, idt + 16 * 3 + 5 # ring 3 may INT3
        lidt    idt_pointer
        mov     loader, %edi
        mov     information, %esi
        call    main
        mov     %eax, %edi
        call    finish

        .globl  finish
finish: mov     %edi, %eax
        mov     $0xf4, %edx
        out     %eax, %dx
1:      hlt
        jmp     1b

# Each vector: an error code, or a 0 in its place, and the number. Sixteen bytes.
        .text
        .balign 16
vectors:
        .set    vector, 0
        .rept   32
        .balign 16
        .if     (vector == 8) || ((vector >= 10) && (vector <= 14)) || (vector == 17) || (vector == 21)
        .else
        push    $0
        .endif
        push    $vector
        jmp     exception
        .set    vector, vector + 1
        .endr

# The C handler gets the frame and may change where it goes on.
exception:
        push    %rax
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        lea     72(%rsp), %rdi
        cld
        call    handle
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        add     $16, %rsp
        iretq

# int attempt(void (*code)(void)): run code; the vector + 1 that it met, 0 for none. The handler leads to `recover`.
        .globl  attempt, recover
attempt:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %rsp, saved_stack
        call    *%rdi
        xor     %eax, %eax
        jmp     1f
recover:
        mov     saved_stack, %rsp
        mov     caught, %eax
1:      pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .data
        .balign 16
gdt:    .quad   0
        .quad   0x00af9b000000ffff      # 08: 64-bit code
        .quad   0x00cf93000000ffff      # 10: data
        .quad   0x00af1b000000ffff      # 18: 64-bit code, not present
        .quad   0x00cf9b000000ffff      # 20: 32-bit code
        .quad   0x00cff3000000ffff      # 28: user data
        .quad   0x00affb000000ffff      # 30: user 64-bit code
gdt_tss:
        .quad   0x0000890000000067, 0   # 38: the task
gdt_end:
gdt_pointer:
        .word   gdt_end - gdt - 1
        .quad   gdt
idt_pointer:
        .word   16 * 32 - 1
        .quad   idt
        .balign 16
        .globl  tss, idt
tss:    .long   0
        .quad   stack_top, 0, 0, 0
        .quad   ist_top, 0, 0, 0, 0, 0, 0, 0
        .word   0, 104
        .globl  loader, caught
loader:         .long 0
information:    .long 0
caught:         .long 0
saved_stack:    .quad 0
        .balign 4096
        .globl  level2, level4
level4: .quad   level3 + 7
        .balign 4096
level3: .quad   level2 + 7, level2 + 4096 + 7, level2 + 8192 + 7, level2 + 12288 + 7
        .balign 4096
level2: .set    page, 0
        .rept   2048
        .quad   0x1e7 | page << 21
        .set    page, page + 1
        .endr

        .bss
        .balign 4096
idt:    .skip   4096
        .skip   16384
stack_top:
        .skip   4096
ist_top:
        .section .note.GNU-stack, "", @progbits
