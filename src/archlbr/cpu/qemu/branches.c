/* A TCG plugin for QEMU user mode: which blocks a program ran, one stream a thread, in memory that the recorder maps too.
 *
 * cpu/qemu/plugin.py builds it, with the sizes and codes of cpu/qemu/stream.py as macros; machine/qemu.py reads what it writes.
 * Every block of code is described once (struct block) and then stands in a stream as its number; between blocks stand events:
 * system calls, signals, blocks given up in the middle, stretches that were only counted. Whatever is rare goes through a FIFO as
 * one message: mappings, threads, processes, and how far a stream has been written. Which branch was taken, and what is made of
 * it, is the reader's business. Design: docs/decisions/042.
 */
#include "plugin.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

EXPORT int qemu_plugin_version = 1;

unsigned started;
static uint32_t chain[BLOCKS], home[1 << 16]; /* blocks by their start */
static unsigned cpus = 1, again; /* again: the process ran another program before */
static __thread unsigned youngest;
static __thread uint64_t argument[6];

/* --- translation --------------------------------------------------------------------------------------------------------------- */

static uint32_t describe(const struct block *b, const uint8_t *sizes) {
    uint32_t slot = b->start * 0x9E3779B97F4A7C15u >> 48, id;
    for (id = home[slot]; id; id = chain[id])
        if (!memcmp(&ring->block[id], b, sizeof *b) && !memcmp(lengths[id], sizes, b->count)) return id;
    id = ring->blocks + 1;
    if (id == BLOCKS) {
        dprintf(2, "archlbr: the program has more than %u blocks of code: record it with --engine unicorn\n", BLOCKS - 1);
        _exit(70);
    }
    static uint8_t *pool;
    static size_t left;
    if (left < b->count && !(pool = malloc(left = 1 << 20))) die("has no memory");
    lengths[id] = memcpy(pool, sizes, b->count);
    pool += b->count, left -= b->count;
    ring->block[id] = *b;
    chain[id] = home[slot];
    home[slot] = id;
    enum ending ending = b->ending;
    begun[id] = (struct begun){b->start, ending == ALWAYS ? NEVER : b->end, ending >= PLAIN ? b->count : LOOK, id, b->count, ending, 0};
    watch_if_handler(&begun[id]);
    __atomic_store_n(&ring->blocks, id, __ATOMIC_RELEASE);
    return id;
}

static void on_translation(plugin_id plugin, struct qemu_plugin_tb *tb) {
    size_t count = qemu_plugin_tb_n_insns(tb);
    uint8_t sizes[4096];
    if (!count || count > sizeof sizes) return;
    struct qemu_plugin_insn *first = qemu_plugin_tb_get_insn(tb, 0), *last = qemu_plugin_tb_get_insn(tb, count - 1);
    struct block b = {.start = qemu_plugin_insn_vaddr(first), .last = qemu_plugin_insn_vaddr(last), .count = count};
    (void)plugin;
    for (size_t i = 0; i < count; i++) sizes[i] = qemu_plugin_insn_size(qemu_plugin_tb_get_insn(tb, i));
    b.size = sizes[count - 1];
    b.end = b.last + b.size;
    memcpy(b.code, qemu_plugin_insn_data(last), b.size);
    if (!started && (uint64_t)qemu_plugin_insn_haddr(first) != b.start) {
        dprintf(2, "archlbr: QEMU placed the program's memory elsewhere: record it with --engine unicorn\n");
        _exit(70);
    }
    b.ending = ending_of(b.code, b.size, b.last, b.count);
    const struct range *range = range_of(b.start), *end = range_of(b.end - 1);
    if (started && (!range || !end)) {
        announce(b.start & -4096ul, ((b.end - 1) | 4095) + 1, PROT_READ | PROT_WRITE | PROT_EXEC);
        range = end = NULL;
    }
    uint32_t id = describe(&b, sizes);
    if (range && end && range->plain && end->plain) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, period ? on_counted_block_entry : on_block_entry, CB_NO_REGS, &begun[id]);
        return;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_careful_block_entry, CB_NO_REGS, &begun[id]);
    qemu_plugin_register_vcpu_insn_exec_cb(last, on_last_instruction, CB_NO_REGS, NULL);
}

/* --- what QEMU says ------------------------------------------------------------------------------------------------------------- */

static void on_syscall(plugin_id plugin, unsigned cpu, int64_t call, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                       uint64_t g, uint64_t h) {
    (void)plugin, (void)d, (void)e, (void)f, (void)g, (void)h;
    here = cpu;
    argument[0] = a, argument[1] = b, argument[2] = c;
    interrupted(cpu);
    put(cpu, call == SYS_rt_sigreturn ? SIGRETURN : SYSCALL);
    if (call == SYS_execve) follow_exec(a, b, c);
    if (call == SYS_exit) {
        post_progress(cpu);
        post(THREAD_ENDED, cpu, 0, 0, 0, 0, "");
    }
}

static void on_syscall_return(plugin_id plugin, unsigned cpu, int64_t call, int64_t result) {
    uint64_t *a = argument, pages = (a[1] + 4095) & -4096ul;
    int failed = result < 0 && result > -4096;
    (void)plugin;
    if (call == SYS_rt_sigreturn || result == -512) return; /* 512: the call is made again (QEMU's ERESTARTSYS) */
    if (call == SYS_mmap || call == SYS_mprotect || call == SYS_munmap || call == SYS_mremap || call == SYS_prctl) post_progress(cpu);
    if (call == SYS_execve) post(STAYED, 0, 0, 0, 0, 0, "");
    if (!failed) switch (call) {
    case SYS_rt_sigaction:
        if (a[1] && *(uint64_t *)a[1] > 1) watch(*(uint64_t *)a[1]);
        break;
    case SYS_mmap:
        remove_range(result, result + pages);
        if (a[2] & PROT_EXEC) announce(result, result + pages, a[2]);
        break;
    case SYS_mprotect:
        if (a[2] & PROT_EXEC) announce(a[0], a[0] + pages, a[2]);
        else remove_range(a[0], a[0] + pages);
        break;
    case SYS_munmap:
        remove_range(a[0], a[0] + pages);
        break;
    case SYS_mremap:
        remove_range(a[0], a[0] + pages);
        remove_range(result, result + ((a[2] + 4095) & -4096ul));
        break;
    case SYS_prctl:
        if (a[0] == PR_SET_NAME) post(NAMED, 0, 0, 0, 0, 0, (char *)a[1]);
        break;
    case SYS_clone:
        if (youngest) post(THREAD, youngest, result, 0, 0, 0, "");
        youngest = 0;
        break;
    }
    put(cpu, RETURNED);
}

static void on_cpu(plugin_id plugin, unsigned cpu) {
    (void)plugin;
    if (cpu >= THREADS) {
        dprintf(2, "archlbr: the program has more than %u threads: record it with --engine unicorn\n", THREADS);
        _exit(70);
    }
    youngest = cpu;
    begin_counting(cpu, !again);
    again = 0;
    if (cpu >= cpus) cpus = cpu + 1;
}

static void at_end(plugin_id plugin, void *userdata) {
    (void)plugin, (void)userdata;
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        if (streams[cpu]->next || streams[cpu]->laps) post_progress(cpu);
    post(EXITED, 0, 0, 0, 0, 0, "");
}

/* The first block of the program: everything is mapped, nothing has run. */
void start(const struct registers *r) {
    started = 1;
    if (r->rip != ring->block[1].start) {
        dprintf(2, "archlbr: this QEMU keeps its registers elsewhere: record with --engine unicorn\n");
        _exit(70);
    }
    reveal(r->general[4]);
    const char *path = qemu_plugin_path_to_binary(), *slash = strrchr(path, '/');
    prctl(PR_SET_NAME, slash ? slash + 1 : path); /* as execve names it */
    announce_program(path);
}

EXPORT int qemu_plugin_install(plugin_id plugin, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "folder=", 7)) folder = strdup(argv[i] + 7);
        if (!strncmp(argv[i], "period=", 7)) period = strtoul(argv[i] + 7, NULL, 10);
        if (!strncmp(argv[i], "words=", 6)) keep_words(strtoul(argv[i] + 6, NULL, 10));
        if (!strncmp(argv[i], "again=", 6)) again = 1;
    }
    if (!folder) return -1;
    uint64_t generation = map_ring();
    post(BEGUN, 0, generation, 0, 0, 0, "");
    follow_forks();
    qemu_plugin_register_vcpu_init_cb(plugin, on_cpu);
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(plugin, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(plugin, on_syscall_return);
    qemu_plugin_register_atexit_cb(plugin, at_end, NULL);
    return 0;
}
