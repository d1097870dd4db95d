/* Runs the plugin's own code without QEMU: blocks, system calls and signals as a test tells them. */
#include "branches.c"
#include <signal.h>

struct happening { uint32_t what, block; uint64_t rip; };
enum { BLOCK, CAREFUL, CALL, SIGNAL_HERE, SIGNAL_RETURN, FAULT_HERE };

EXPORT uint32_t describe_block(uint64_t start, const uint8_t *sizes, uint32_t count, const uint8_t *code) {
    struct block b = {.start = start, .last = start, .count = count, .size = sizes[count - 1]};
    for (uint32_t i = 0; i + 1 < count; i++) b.last += sizes[i];
    b.end = b.last + b.size;
    memcpy(b.code, code, b.size);
    b.ending = ending_of(b.code, b.size, b.last, b.count);
    return describe(&b, sizes);
}

EXPORT int how_it_ends(const uint8_t *code, unsigned size, uint64_t address, uint32_t count) {
    return ending_of(code, size, address, count);
}

EXPORT void begin(const char *where, uint64_t wanted) {
    if (ring) munmap(ring, sizeof *ring);
    free((char *)folder);
    folder = strdup(where);
    period = wanted;
    started = 1;
    memset(home, 0, sizeof home);
    map_ring();
    forget_careful_blocks();
    begin_counting(0, 1);
}

static void enter(void (*entry)(unsigned, void *), struct begun *b, struct registers *r) {
    __asm__ volatile("push %%rbp\n mov %%rsp, %%rbx\n and $-16, %%rsp\n mov %[r], %%rbp\n call *%[entry]\n mov %%rbx, %%rsp\n pop %%rbp"
                     : : [r] "r"(r), [entry] "r"(entry), "D"(0ul), "S"(b)
                     : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
}

EXPORT void run(const struct happening *h, uint32_t count) {
    for (const struct happening *end = h + count; h < end; h++) {
        static uint64_t frame[256];
        struct registers r = {.rip = h->block ? begun[h->block].start : 0};
        int signo = h->what == FAULT_HERE ? SIGSEGV : SIGUSR1;
        void (*entry)(unsigned, void *) = h->what == CAREFUL ? on_careful_block_entry : period ? on_counted_block_entry : on_block_entry;
        switch (h->what) {
        case CALL: case SIGNAL_RETURN:
            on_syscall(0, 0, h->what == CALL ? SYS_getpid : SYS_rt_sigreturn, 0, 0, 0, 0, 0, 0, 0, 0);
            on_syscall_return(0, 0, h->what == CALL ? SYS_getpid : SYS_rt_sigreturn, 0);
            break;
        case SIGNAL_HERE: case FAULT_HERE: /* a frame as signalled() looks for it */
            watch(r.rip);
            r.general[4] = (uint64_t)frame;
            r.general[2] = (uint64_t)frame + 8;
            r.general[6] = (uint64_t)frame + 8 + 936;
            r.general[7] = signo;
            *(int32_t *)r.general[6] = signo;
            *(int32_t *)(r.general[6] + 8) = h->what == FAULT_HERE;
            *(uint64_t *)(r.general[2] + 40 + 16 * 8) = h->rip;
            /* fall through */
        default:
            enter(entry, &begun[h->block], &r);
        }
    }
}
