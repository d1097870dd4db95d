/* What the program does that matters to a recording: it begins and ends threads, and makes system calls.
 *
 * Stalker calls these functions where transform.c puts them. What cannot be recorded exactly ends the program before it happens.
 * Design: docs/decisions/044.
 */
static int within(const struct range *ranges, u32 used, u64 start, u64 end) {
    u32 i;
    for (i = 0; i < used; i++)
        if (start >= ranges[i].start && end <= ranges[i].end) return 1;
    return 0;
}

static int touches(const struct range *ranges, u32 used, u64 start, u64 end) {
    u32 i;
    for (i = 0; i < used; i++)
        if (start < ranges[i].end && end > ranges[i].start) return 1;
    return 0;
}

void add_plain(u64 start, u64 end) {
    if (state.plain_used == PLAIN) refuse(MANY_MAPPINGS, 0);
    state.plain[state.plain_used].start = start;
    state.plain[state.plain_used++].end = end;
}

void add_changed(u64 start, u64 end) {
    if (state.changed_used == CHANGED) refuse(MANY_MAPPINGS, 0);
    state.changed[state.changed_used].start = start;
    state.changed[state.changed_used++].end = end;
}

/* Return where memory and a file's bytes differ next, at `from` or behind; size where nowhere. */
u64 find_change(const u8 *memory, const u8 *file, u64 from, u64 size) {
    while (from < size && memory[from] == file[from]) from++;
    return from;
}

void set_main(u64 address) { state.main = address; }
void set_thread_create(u64 address) { state.thread_create = address; }
void set_loops(u8 *address) { state.loops = address; }
void add_exit(u64 address) { state.exits[state.exits_used++] = address; }

/* Write the process's threads as getdents64 gives them; return how many bytes. */
int list_threads(u8 *entries, u32 size) {
    long fd = call3(2, (long)"/proc/self/task", 0, 0), written = call3(217, fd, (long)entries, size);
    call3(3, fd, 0, 0);
    return written;
}

static void begin(u64 address) {
    u32 number = g_atomic_int_add((volatile gint *)&state.ring->threads, 1);
    struct stream *s = &state.ring->stream[number];
    if (number >= THREADS) refuse(MANY_THREADS, 0);
    s->tid = call3(186, 0, 0, 0);
    s->self = (u64)s;
    s->slow = (u64)slow_way;
    s->begin = address;
    call3(158, 0x1001, (long)s, 0); /* arch_prctl(ARCH_SET_GS) */
}

/* Handlers that were there before main; Frida's own lie elsewhere. */
static void look_for_handlers(void) {
    u64 action[4], result;
    long number;
    for (number = 1; number <= 64; number++) {
        if (number == 32 || number == 33) continue; /* the C library's own, for threads: see on_call */
        __asm__ volatile("mov $8, %%r10\n syscall" : "=a"(result) : "a"(13), "D"(number), "S"(0), "d"(action) : "rcx", "r10", "r11", "memory");
        if (!result && within(state.plain, state.plain_used, action[0], action[0] + 1)) refuse(HANDLER, action[0]);
    }
}

void begin_main(void) {
    look_for_handlers();
    begin(state.main);
}
void begin_thread(struct thread *thread) { begin(thread->function); }
u64 main_address(void) { return state.main; }
void follow_on(void) { follow(); }

/* In place of main, and of a thread's function: from the return of `follow_on` on, the thread runs what Stalker translates. */
__asm__(
    ".globl enter_main\n"
    "enter_main:\n push %rdi\n push %rsi\n push %rdx\n"
    "call begin_main\n call follow_on\n call main_address\n"
    "pop %rdx\n pop %rsi\n pop %rdi\n jmp *%rax\n"
    ".globl enter_thread\n"
    "enter_thread:\n push %rdi\n"
    "call begin_thread\n call follow_on\n"
    "pop %rdi\n mov (%rdi), %rax\n mov 8(%rdi), %rdi\n jmp *%rax\n");
extern char enter_main[], enter_thread[];
u64 main_entry(void) { return (u64)enter_main; }

static void on_begin(GumCpuContext *cpu, gpointer data) {
    struct stream *s = own();
    if (s->state == BEFORE) {
        s->state = INSIDE;
        put(s, BEGUN);
    }
}

static void on_exit(GumCpuContext *cpu, gpointer data) {
    struct stream *s = own();
    u32 words[3] = {LEFT, (u32)(u64)data, (u64)data >> 32};
    if (s->state == INSIDE) {
        put_event(s, 3, words);
        s->state = AFTER;
    }
}

/* What Frida itself has changed, or nobody vouches for: the program's own only between its begin and its end. */
static void on_foreign_code(GumCpuContext *cpu, gpointer data) {
    if (own()->state == INSIDE)
        refuse(touches(state.changed, state.changed_used, (u64)data, (u64)data + 1) ? CHANGED_CODE : UNKNOWN_CODE, (u64)data);
}

static void on_refused(GumCpuContext *cpu, gpointer data) {
    refuse((u32)(u64)data, cpu->rip);
}

static void on_thread_create(GumCpuContext *cpu, gpointer data) {
    u32 slot = g_atomic_int_add((volatile gint *)&state.slots, 1);
    if (slot >= THREADS) refuse(MANY_THREADS, 0);
    state.thread[slot].function = cpu->rdx;
    state.thread[slot].argument = cpu->rcx;
    cpu->rdx = (u64)enter_thread;
    cpu->rcx = (u64)&state.thread[slot];
    own()->creating = 1;
}

static void on_call(GumCpuContext *cpu, gpointer data) {
    struct stream *s = own();
    u64 a = cpu->rdi, b = cpu->rsi, c = cpu->rdx, d = cpu->r10, flags = a, pages = (b + 4095) & -4096ul;
    u32 i, name[5] = {NAMED, 0, 0, 0, 0};
    switch (cpu->rax) {
    case 57: case 58: refuse(FORKS, 0); /* fork, vfork */
    case 59: case 322: refuse(EXECUTES, 0); /* execve, execveat */
    case 435: flags = *(u64 *)a; /* clone3 */
    case 56: /* clone */
        if (!(flags & 0x10000)) refuse(FORKS, 0);
        if (!s->creating) refuse(BARE_THREAD, 0);
        s->creating = 0;
        break;
    case 13: if (b && *(u64 *)b > 1 && a != 32 && a != 33) refuse(HANDLER, *(u64 *)b); break; /* rt_sigaction */
    case 105: case 106: case 113: case 114: case 116: case 117: case 119: refuse(BROADCASTS, 0); /* setuid to setresgid */
    case 234: if (c == 32 || c == 33) refuse(BROADCASTS, 0); break; /* tgkill, from pthread_cancel */
    case 9: /* mmap */
        if (c & 4) refuse(d & 0x20 ? MAKES_CODE : LOADS, 0);
        if (d & 0x10 && touches(state.plain, state.plain_used, a, a + pages)) refuse(UNLOADS, 0);
        break;
    case 10: case 329: if (c & 4 || touches(state.plain, state.plain_used, a, a + pages)) refuse(MAKES_CODE, 0); break; /* mprotect */
    case 11: if (touches(state.plain, state.plain_used, a, a + pages)) refuse(UNLOADS, 0); break; /* munmap */
    case 25: if (touches(state.plain, state.plain_used, a, a + pages)) refuse(MAKES_CODE, 0); break; /* mremap */
    case 30: if (c & 0100000) refuse(MAKES_CODE, 0); break; /* shmat */
    case 158: /* arch_prctl: ARCH_SET_GS, ARCH_GET_GS, ARCH_SET_FS */
        if (a == 0x1001 || a == 0x1004) refuse(USES_GS, 0);
        if (a == 0x1002) refuse(MOVES_FS, 0);
        break;
    case 317: refuse(CONFINES, 0); /* seccomp */
    case 157: /* prctl: PR_SET_SECCOMP, PR_SET_NAME */
        if (a == 22) refuse(CONFINES, 0);
        if (a == 15) {
            for (i = 0; i < 15 && ((char *)b)[i]; i++) ((char *)(name + 1))[i] = ((char *)b)[i];
            put_event(s, 5, name);
        }
        break;
    }
    put(s, SYSCALL);
}

static void on_return(GumCpuContext *cpu, gpointer data) {
    put(own(), RETURNED);
}
