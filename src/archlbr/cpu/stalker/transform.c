/* What Frida's Stalker is told to add to each block of code that it translates: the block's number, appended to a stream.
 *
 * agent.js compiles this, behind ring.c and program.c, in the program's process (Frida's CModule, a small C compiler), with the
 * sizes and codes of cpu/qemu/stream.py and cpu/stalker/agent.py as macros. The ring is that of the QEMU plugin: descriptions of blocks, and a
 * circle of words for each thread. GS points to the thread's stream, so that a word is appended without a register to spare and
 * without a flag changed. What cannot be recorded exactly ends the program before it happens. Design: docs/decisions/044.
 */

/* mov %rcx, %gs:0x40; mov %gs:0, %ecx; movl $WORD, %gs:0x1000(,%rcx,4); lea 1(%rcx), %ecx; mov %ecx, %gs:0; movzx %cx, %ecx;
 * jrcxz slow; back: mov %gs:0x40, %rcx; jmp on; slow: lea back(%rip), %rcx; jmp *%gs:0x80; on: */
static void append(GumX86Writer *writer, u32 word) {
    u8 code[] = {
        0x65, 0x48, 0x89, 0x0C, 0x25, 0x40, 0, 0, 0, 0x65, 0x8B, 0x0C, 0x25, 0, 0, 0, 0,
        0x65, 0xC7, 0x04, 0x8D, 0, 0x10, 0, 0, word, word >> 8, word >> 16, word >> 24,
        0x8D, 0x49, 1, 0x65, 0x89, 0x0C, 0x25, 0, 0, 0, 0, 0x0F, 0xB7, 0xC9,
        0xE3, 11, 0x65, 0x48, 0x8B, 0x0C, 0x25, 0x40, 0, 0, 0, 0xEB, 15,
        0x48, 0x8D, 0x0D, -18, 0xFF, 0xFF, 0xFF, 0x65, 0xFF, 0x24, 0x25, 0x80, 0, 0, 0,
    };
    gum_x86_writer_put_bytes(writer, code, sizeof code);
}

static void describe(struct block *b, u64 start, u64 last, u32 count, u32 size, const u8 *code) {
    b->start = start, b->end = last + size, b->last = last, b->count = count, b->size = size;
    memcpy(b->code, code, size);
    state.ring->blocks++;
}

static int ends_block(const cs_insn *insn) {
    u32 i;
    for (i = 0; insn->detail && i < insn->detail->groups_count; i++)
        if (insn->detail->groups[i] == CS_GRP_JUMP || insn->detail->groups[i] == CS_GRP_CALL || insn->detail->groups[i] == CS_GRP_RET)
            return 1;
    return 0;
}

/* LOOP is no branch to Stalker, which would copy it as it stands, to lead wherever its copy happens to point. So a jump is
 * put in its place, to code of ours that does what it does and leaves the flags alone:
 * lea -1(%rcx), %rcx; jrcxz on; [LOOPE: jne on] [LOOPNE: je on] jmp *target; on: jmp *behind. Both jumps' targets lie behind them.
 * The recording sees nothing of that code: LOOP ends its block, and the next block is where it led. */
static u64 write_loop(u32 id, u64 target, u64 behind) {
    u32 number = g_atomic_int_add((volatile gint *)&state.loops_used, 1), condition = id == X86_INS_LOOP ? 0 : 2;
    u8 *code = state.loops + LOOP_BYTES * number, *at = code;
    u8 head[] = {0x48, 0x8D, 0x49, 0xFF, 0xE3, 14 + condition, id == X86_INS_LOOPE ? 0x75 : 0x74, 14};
    u8 jump[] = {0xFF, 0x25, 0, 0, 0, 0};
    if (number >= LOOPS_MADE) refuse(MANY_BLOCKS, 0);
    memcpy(at, head, 6 + condition), at += 6 + condition;
    memcpy(at, jump, 6), memcpy(at + 6, &target, 8), at += 14;
    memcpy(at, jump, 6), memcpy(at + 6, &behind, 8);
    return (u64)code;
}

static int in_loops(u64 address) {
    return address - (u64)state.loops < LOOP_BYTES * LOOPS_MADE;
}

/* Whether an instruction uses GS: by name, or as a segment of memory. */
static int uses_gs(const cs_insn *insn) {
    u32 i;
    for (i = 0; insn->detail && i < insn->detail->x86.op_count; i++) {
        const cs_x86_op *operand = &insn->detail->x86.operands[i];
        if (operand->type == X86_OP_REG ? operand->reg == X86_REG_GS : operand->type == X86_OP_MEM && operand->mem.segment == X86_REG_GS)
            return 1;
    }
    return 0;
}

void transform(GumStalkerIterator *iterator, GumStalkerOutput *output, gpointer data) {
    GumX86Writer *writer = output->writer.x86;
    const cs_insn *insn;
    struct stream *s = own();
    u64 start = 0, last = 0;
    u32 count = 0, size = 0, i, id;
    u8 code[16];
    gum_spinlock_acquire(&state.ring->lock);
    while (gum_stalker_iterator_next(iterator, &insn)) {
        int final = 0, looped = 0;
        if (in_loops(insn->address)) {
            gum_stalker_iterator_keep(iterator);
            continue;
        }
        if (!count) {
            start = insn->address;
            if (state.ring->blocks == BLOCKS - 1) refuse(MANY_BLOCKS, 0);
            if (start == s->begin && s->state == BEFORE) gum_stalker_iterator_put_callout(iterator, on_begin, NULL, NULL);
            for (i = 0; i < state.exits_used; i++)
                if (start == state.exits[i]) gum_stalker_iterator_put_callout(iterator, on_exit, (gpointer)start, NULL);
            if (start == state.thread_create) gum_stalker_iterator_put_callout(iterator, on_thread_create, NULL, NULL);
            id = state.ring->blocks + 1;
            append(writer, id);
        }
        last = insn->address, size = insn->size, count++;
        memcpy(code, insn->bytes, size);
        if (!within(state.plain, state.plain_used, last, last + size) || touches(state.changed, state.changed_used, last, last + size))
            gum_stalker_iterator_put_callout(iterator, on_foreign_code, (gpointer)last, NULL);
        if (uses_gs(insn)) gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)USES_GS, NULL);
        switch (insn->id) {
        case X86_INS_LOOP: case X86_INS_LOOPE: case X86_INS_LOOPNE:
            if (size != 2) { /* a prefix: it counts ECX */
                gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)LOOPS, NULL);
                break;
            }
            final = looped = 1;
            insn->detail->x86.operands[0].imm = write_loop(insn->id, insn->detail->x86.operands[0].imm, last + size);
            ((cs_insn *)insn)->id = X86_INS_JMP;
            break;
        case X86_INS_WRFSBASE:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)MOVES_FS, NULL);
            break;
        case X86_INS_WRGSBASE: case X86_INS_RDGSBASE:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)USES_GS, NULL);
            break;
        case X86_INS_XBEGIN:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)TRANSACTS, NULL);
            break;
        case X86_INS_INT: case X86_INS_SYSENTER: case X86_INS_LJMP: case X86_INS_LCALL: case X86_INS_RETF: case X86_INS_RETFQ:
        case X86_INS_IRET: case X86_INS_IRETD: case X86_INS_IRETQ:
            gum_stalker_iterator_put_callout(iterator, on_refused, (gpointer)FAR, NULL);
            break;
        case X86_INS_SYSCALL:
            final = 1;
            gum_stalker_iterator_put_callout(iterator, on_call, NULL, NULL);
            break;
        default:
            final = ends_block(insn);
        }
        i = insn->id;
        gum_stalker_iterator_keep(iterator);
        if (i == X86_INS_SYSCALL) gum_stalker_iterator_put_callout(iterator, on_return, NULL, NULL);
        if (final) {
            describe(&state.ring->block[id], start, last, count, size, code);
            count = 0;
        }
        if (looped) break; /* Stalker would read on: to it this was no jump */
    }
    if (count) describe(&state.ring->block[id], start, last, count, size, code);
    gum_spinlock_release(&state.ring->lock);
}
