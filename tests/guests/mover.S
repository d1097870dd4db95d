/* Ring 0 on the board: everything a snapshot must carry is in use while it runs, and every line it prints depends on all
 * of it. A counter of taken branches raises an NMI each 499; its handler mixes the newest sixteen LBR records into a sum.
 * The 8254 interrupts each 214 us; each eighth time the sum, a float of each kind and the time go out as a line. The main
 * loop calls, jumps, computes and halts. After LINES lines it ends with 'A'.
 */
        .set LINES, 24
        .text
        .globl _start
_start: cli
        lea     gates(%rip), %rdi
        lea     nmi(%rip), %rax
        mov     $2, %ecx
        call    gate
        lea     timer(%rip), %rax
        mov     $0x30, %ecx
        call    gate
        lidt    idt(%rip)
        .irp    pair, 0x1120, 0x3021, 0x0421, 0x0121, 0xfe21
        mov     $(\pair >> 8), %al
        out     %al, $(\pair & 0xff)
        .endr
        mov     $0x34, %al
        out     %al, $0x43
        mov     $0x00, %al
        out     %al, $0x40
        mov     $0x01, %al
        out     %al, $0x40
        mov     %cr0, %rax              /* no emulation, so that x87 and SSE run */
        and     $~4, %rax
        mov     %rax, %cr0
        mov     %cr4, %rax
        or      $0x600, %rax
        mov     %rax, %cr4
        fninit
        fldpi
        mov     $0xfee00340, %eax
        movl    $0x400, (%rax)
        .irp    pair, 0x1d9, 0x14ce, 0x186
        mov     $\pair, %ecx
        mov     value_\pair(%rip), %eax
        xor     %edx, %edx
        wrmsr
        .endr
        call    arm
        mov     $0x38f, %ecx
        mov     $1, %eax
        xor     %edx, %edx
        wrmsr
        sti
loop:   mov     $300, %ebx
1:      call    step
        lea     ways(%rip), %rax
        mov     %ebx, %ecx
        and     $3, %ecx
        jmp     *(%rax,%rcx,8)
way0:   add     $7, %r12
        jmp     2f
way1:   rol     $3, %r12
        jmp     2f
way2:   xor     %rbx, %r12
way3:   cvtsi2sd %rbx, %xmm0
        addsd   %xmm0, %xmm1
2:      dec     %ebx
        jnz     1b
        fadd    %st, %st(0)
        fldpi
        fsubrp  %st, %st(1)
        hlt
        cmpl    $LINES, lines(%rip)
        jb      loop
        mov     $'A', %al
        out     %al, $0xf4
        jmp     .
step:   lea     1(%r12,%r12,2), %r12
        ret

gate:   imul    $16, %rcx, %rcx
        mov     %ax, (%rdi,%rcx)
        movw    $0x10, 2(%rdi,%rcx)
        movw    $0x8e00, 4(%rdi,%rcx)
        shr     $16, %rax
        mov     %ax, 6(%rdi,%rcx)
        ret

arm:    mov     $0x4c1, %ecx
        mov     $-499, %eax
        mov     $0xffff, %edx
        wrmsr
        ret

nmi:    push    %rax
        push    %rcx
        push    %rdx
        push    %rsi
        mov     $15, %esi
1:      .irp    block, 0x1500, 0x1600, 0x1200
        lea     \block(%rsi), %ecx
        rdmsr
        shl     $32, %rdx
        or      %rdx, %rax
        rol     $5, %r15
        add     %rax, %r15
        .endr
        dec     %esi
        jns     1b
        call    arm
        mov     $0xfee00340, %eax
        movl    $0x400, (%rax)
        mov     $0x390, %ecx
        mov     $1, %eax
        mov     $0x0c000000, %edx
        wrmsr
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        iretq

timer:  push    %rax
        push    %rcx
        push    %rdx
        push    %rsi
        mov     $0x20, %al
        out     %al, $0x20
        incl    ticks(%rip)
        testl   $7, ticks(%rip)
        jnz     9f
        incl    lines(%rip)
        rdtsc
        shl     $32, %rdx
        or      %rdx, %rax
        rol     $7, %r15
        add     %rax, %r15
        xor     %r12, %r15
        movq    %xmm1, %rax
        add     %rax, %r15
        fstl    float(%rip)
        add     float(%rip), %r15
        mov     $60, %ecx
        mov     $0x3f8, %edx
1:      mov     %r15, %rsi
        shr     %cl, %rsi
        and     $15, %esi
        lea     digits(%rip), %rax
        mov     (%rax,%rsi), %al
        out     %al, %dx
        sub     $4, %ecx
        jns     1b
        mov     $10, %al
        out     %al, %dx
        mov     $0x2f8, %edx
        mov     lines(%rip), %al
        out     %al, %dx
9:      pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        iretq

        .data
        .balign 16
gates:  .fill   4096, 1, 0
idt:    .word   4095
        .quad   gates
        .balign 8
ways:   .quad   way0, way1, way2, way3
float:  .double 0
value_0x1d9:  .long 1 << 11
value_0x14ce: .long 0x7f0003
value_0x186:  .long 0x5220c4
ticks:  .long   0
lines:  .long   0
digits: .ascii  "0123456789abcdef"
