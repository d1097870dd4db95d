# Code that changes while it runs: patched ahead of the program counter, patched between runs, generated anew.
        .text
        .globl  _start
_start: mov     $10, %eax               # mprotect(page, 4096, RWX)
        lea     page(%rip), %rdi
        mov     $4096, %esi
        mov     $7, %edx
        syscall
        test    %eax, %eax
        jnz     fail
        xor     %ebx, %ebx
        jmp     page
fail:   ud2
done:   movzbl  %bl, %edi
        mov     $231, %eax
        syscall

        .balign 4096
page:
# --- an immediate that is patched before each of 100 runs ---------------------------------------------------------------------
        mov     $100, %ecx
1:      mov     %ecx, immediate+1(%rip)
immediate:
        mov     $0x7fffffff, %eax
        add     %eax, %ebx
        dec     %ecx
        jnz     1b

# --- a jump's displacement, so that its target alternates ------------------------------------------------------------------------
        mov     $20, %ecx
2:      mov     %ecx, %eax
        and     $1, %eax
        shl     $1, %eax                # 0 or 2
        mov     %al, hop+1(%rip)
hop:    jmp     3f
3:      inc     %ebx
        inc     %ebx
        dec     %ecx
        jnz     2b

# --- a condition that turns over: JZ becomes JNZ and back ------------------------------------------------------------------------
        mov     $20, %ecx
4:      xorb    $1, turn(%rip)
        xor     %eax, %eax
turn:   jz      5f
        inc     %ebx
5:      dec     %ecx
        jnz     4b

# --- a jump that becomes two NOPs, then a jump again -------------------------------------------------------------------------------
        mov     $12, %ecx
6:      mov     $0x9090, %eax
        test    $1, %ecx
        jz      7f
        mov     $0x02eb, %eax           # JMP +2
7:      mov     %ax, either(%rip)
either: .byte   0x90, 0x90
        inc     %ebx
        dec     %ecx
        jnz     6b

# --- the next instruction, written by the one before it ------------------------------------------------------------------------------
        mov     $8, %ecx
8:      movb    $0xc3, %al
        call    9f
        dec     %ecx
        jnz     8b
        jmp     10f
9:      movb    $0x90, ahead(%rip)
        movb    $0xc3, ahead(%rip)      # RET, in place of the NOP just written
ahead:  nop
        ud2

# --- a string store that writes the code it runs into -------------------------------------------------------------------------------
10:     mov     $6, %r8d
11:     lea     filled(%rip), %rdi
        mov     $5, %ecx
        mov     $0x90, %al
        rep stosb
filled: ud2
        ud2
        nop
        inc     %ebx
        movw    $0x0b0f, filled(%rip)
        movw    $0x0b0f, filled+2(%rip)
        dec     %r8d
        jnz     11b

# --- a function that is written anew, longer each time, and called ---------------------------------------------------------------------
        xor     %r8d, %r8d
12:     lea     made(%rip), %rdi
        mov     %r8d, %ecx
        mov     $0x90, %al
        rep stosb                       # NOPs
        mov     $0xc3ff, %eax           # INC EBX
        stosw
        mov     $0xc3, %al              # RET
        stosb
        call    made
        inc     %r8d
        cmp     $24, %r8d
        jne     12b

# --- a loop whose own body loses a branch while it loops --------------------------------------------------------------------------------
        mov     $30, %ecx
13:     cmp     $15, %ecx
        jne     14f
        movw    $0x9090, inner(%rip)
14:     xor     %eax, %eax
inner:  jz      15f
        inc     %ebx
15:     dec     %ecx
        jnz     13b
        jmp     done
        .balign 64
made:   .skip   128, 0xcc
        .balign 4096
        .section .note.GNU-stack, "", @progbits
