/* A TCG plugin for QEMU user mode: which blocks a program ran, one stream a thread, in memory that the recorder maps too.
 *
 * cpu/qemu/plugin.py builds it, with the sizes and codes of cpu/qemu/stream.py as macros; machine/qemu.py reads what it writes.
 * Every block of code is described once (struct block) and then stands in a stream as its number; between blocks stand events:
 * system calls, signals, blocks given up in the middle. Whatever is rare goes through a FIFO as one message: mappings, threads,
 * processes, and how far a stream has been written. The kinds of branches are the reader's business. Design: docs/decisions/042.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* What is used of QEMU's plugin interface, version 1 (docs/devel/tcg-plugins.rst); Debian ships no header for it. */
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;
enum { CB_NO_REGS };
void qemu_plugin_register_vcpu_init_cb(plugin_id, void (*)(plugin_id, unsigned));
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                                              uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, void (*)(plugin_id, unsigned, int64_t, int64_t));
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
const char *qemu_plugin_path_to_binary(void);

#define WORDS (CHUNK * CHUNKS)
#define WATCHED 0x80000000u /* in a block's number: a signal handler begins here */

struct block { uint64_t start, end, last; uint32_t count, size; uint8_t code[16]; }; /* code: of the last instruction */
struct stream { uint32_t next, laps, consumed, unused[1021]; uint32_t words[WORDS]; };
struct ring { uint32_t blocks, unused[1023]; struct block block[BLOCKS]; struct stream stream[THREADS]; };
struct message { uint32_t size, type, pid, tid; uint64_t a, b, c, d, e; char text[]; };

static const char *folder;
static struct ring *ring;
static uint32_t number[BLOCKS]; /* what each block writes: its number, perhaps WATCHED */
static uint8_t *lengths[BLOCKS]; /* of each block's instructions */
static uint32_t chain[BLOCKS], home[1 << 16];
static uint64_t handlers[512];
static unsigned handlers_used, cpus = 1, forks, gone, started;
static struct { uint32_t open, reached; } careful[THREADS];
static struct range { uint64_t start, end; int plain; } *ranges; /* where code may be; plain: it cannot change */
static unsigned ranges_used, ranges_room;
static char **prefix; /* QEMU's own words on the command line */
static unsigned prefix_words;
static __thread unsigned here, youngest;
static __thread uint64_t argument[6];

static void die(const char *what) {
    dprintf(2, "archlbr: the QEMU plugin %s: %s\n", what, strerror(errno));
    _exit(70);
}

/* --- messages ------------------------------------------------------------------------------------------------------------ */

/* The FIFO is opened for each message: the program may close, or take, any descriptor that it does not know. */
static void post(uint32_t type, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, const char *text) {
    char path[PATH_MAX];
    union { struct message m; char raw[PIPE_BUF]; } u = {{0, type, getpid(), syscall(SYS_gettid), a, b, c, d, e}};
    size_t length = strnlen(text, PIPE_BUF - sizeof u.m - 1), size = sizeof u.m + length + 1;
    if (gone) return;
    memcpy(u.m.text, text, length);
    u.m.text[length] = 0;
    u.m.size = size = (size + 7) & ~7ul;
    snprintf(path, sizeof path, "%s/events", folder);
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == ENXIO || errno == ENOENT)) { gone = 1; return; } /* the recorder has ended: run on without it */
    if (fd < 0) die("cannot reach the recorder");
    fcntl(fd, F_SETFL, 0);
    ssize_t done;
    do done = write(fd, u.raw, size); while (done < 0 && errno == EINTR);
    if (done < 0) gone = 1;
    close(fd);
}

static void post_progress(unsigned cpu) {
    struct stream *s = &ring->stream[cpu];
    post(PROGRESS, cpu, (uint64_t)s->laps * WORDS + s->next, 0, 0, 0, "");
}

/* --- streams --------------------------------------------------------------------------------------------------------------- */

static __attribute__((noinline)) void end_chunk(struct stream *s, unsigned cpu) {
    if (s->next == WORDS) s->laps++, s->next = 0;
    uint32_t total = s->laps * CHUNKS + s->next / CHUNK, consumed;
    post_progress(cpu);
    while (!gone && total - (consumed = __atomic_load_n(&s->consumed, __ATOMIC_ACQUIRE)) >= CHUNKS) {
        struct timespec second = {1, 0};
        if (syscall(SYS_futex, &s->consumed, FUTEX_WAIT, consumed, &second, 0, 0) < 0 && errno == ETIMEDOUT)
            post(NOTHING, 0, 0, 0, 0, 0, ""); /* finds out whether the recorder is still there */
    }
}

static inline void put(unsigned cpu, uint32_t word) {
    struct stream *s = &ring->stream[cpu];
    uint32_t n = s->next;
    s->words[n] = word;
    s->next = ++n;
    if (__builtin_expect(!(n % CHUNK), 0)) end_chunk(s, cpu);
}

/* An event never lies across two chunks, so that its reader has all of it. */
static void put_event(unsigned cpu, unsigned count, const uint32_t *words) {
    struct stream *s = &ring->stream[cpu];
    if (s->next % CHUNK + count > CHUNK)
        do put(cpu, 0); while (s->next % CHUNK);
    for (unsigned i = 0; i < count; i++) put(cpu, words[i]);
}

static uint32_t last_word(unsigned cpu) {
    struct stream *s = &ring->stream[cpu];
    return s->words[(s->next ? s->next : WORDS) - 1];
}

static uint32_t count_to(uint32_t id, uint64_t address) {
    uint64_t at = ring->block[id].start;
    uint32_t n = 0;
    while (n < ring->block[id].count && at < address) at += lengths[id][n++];
    return n;
}

/* The CPU's registers lie at the front of what TCG's code keeps in RBP, RAX RCX RDX RBX RSP RBP RSI RDI R8.., then RIP. At the
 * start of a block they are all in memory. `start` checks that it is so. */
struct registers { uint64_t general[16], rip; };
#define ENTRY(function) \
    void function##_entry(unsigned, void *); \
    void function(unsigned, void *, const struct registers *) __attribute__((used)); \
    __asm__(".text\n.local " #function "_entry\n" #function "_entry: mov %rbp, %rdx\n jmp " #function "\n")

/* A signal's frame: the return address, then the context (RDX), then the siginfo (RSI); the signal in RDI. */
static void watched(unsigned cpu, uint32_t id, const struct registers *r) {
    uint64_t rsp = r->general[4], context = r->general[2], info = r->general[6];
    if (context != rsp + 8 || info <= context || info - context > 1024) return;
    int32_t signo = *(int32_t *)info, code = *(int32_t *)(info + 8);
    if (signo != (int32_t)r->general[7]) return;
    uint64_t rip = *(uint64_t *)(context + 40 + 16 * 8);
    int fault = code > 0 && (signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE || signo == SIGTRAP);
    uint32_t open = last_word(cpu), count = open && open < EVENTS ? count_to(open, rip) : 0;
    put_event(cpu, 6, (uint32_t[]){SIGNAL, id, count, (uint32_t)rip, rip >> 32, fault});
}

static __attribute__((noinline)) void start(const struct registers *r);

ENTRY(on_block);
void on_block(unsigned cpu, void *userdata, const struct registers *r) {
    uint32_t word = *(volatile uint32_t *)userdata;
    if (__builtin_expect(word & WATCHED, 0)) watched(cpu, word &= ~WATCHED, r);
    put(cpu, word);
}

/* A block whose code may change: it is given up at a store into itself, and what follows begins there. */
ENTRY(on_careful_block);
void on_careful_block(unsigned cpu, void *userdata, const struct registers *r) {
    uint32_t word = *(volatile uint32_t *)userdata, id = word & ~WATCHED, open = careful[cpu].open;
    if (__builtin_expect(!started, 0)) start(r);
    if (word & WATCHED) watched(cpu, id, r);
    if (open && last_word(cpu) == open) {
        uint64_t at = ring->block[id].start;
        const struct block *b = &ring->block[open];
        /* With its last instruction begun, only a store in that one leads back there. */
        if (careful[cpu].reached ? at == b->last && b->count > 1 : at >= b->start && at < b->end)
            put_event(cpu, 3, (uint32_t[]){RESTARTED, count_to(open, at), careful[cpu].reached});
    }
    put(cpu, id);
    careful[cpu].open = id;
    careful[cpu].reached = 0;
}

static void on_last_instruction(unsigned cpu, void *userdata) {
    (void)userdata;
    careful[cpu].reached = 1;
}

/* --- where code lies --------------------------------------------------------------------------------------------------------- */

static void add_range(uint64_t start, uint64_t end, int plain) {
    if (ranges_used == ranges_room && !(ranges = realloc(ranges, (ranges_room += 256) * sizeof *ranges))) die("has no memory");
    ranges[ranges_used++] = (struct range){start, end, plain};
}

static void remove_range(uint64_t start, uint64_t end) {
    for (unsigned i = 0, n = ranges_used; i < n; i++) {
        struct range r = ranges[i];
        if (r.start >= end || r.end <= start) continue;
        ranges[i].end = r.start < start ? start : r.start;
        if (r.end > end) add_range(end, r.end, r.plain);
    }
    for (unsigned i = 0; i < ranges_used;)
        if (ranges[i].start >= ranges[i].end) ranges[i] = ranges[--ranges_used];
        else i++;
}

static const struct range *range_of(uint64_t address) {
    for (unsigned i = 0; i < ranges_used; i++)
        if (address >= ranges[i].start && address < ranges[i].end) return &ranges[i];
    return NULL;
}

/* Tell of executable memory in [start, end), as the host's own list of mappings has it: guest memory lies at its own addresses. */
static void announce(uint64_t start, uint64_t end, int rights) {
    char line[PATH_MAX + 128];
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) die("cannot read /proc/self/maps");
    while (fgets(line, sizeof line, maps)) {
        uint64_t low, high, offset, inode;
        unsigned major, minor;
        char flags[8], *path;
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &low, &high, flags, &offset, &major, &minor, &inode) != 7) continue;
        if (high <= start || low >= end) continue;
        path = strchr(line, '/');
        line[strcspn(line, "\n")] = 0;
        uint64_t from = low > start ? low : start, to = high < end ? high : end;
        int shared = flags[3] == 's', known = range_of(from) != NULL;
        remove_range(from, to);
        add_range(from, to, !(rights & PROT_WRITE) && !shared);
        if (known) continue; /* it was executable before */
        if (path) offset += from - low;
        post(MAPPED, from, to, path ? offset : 0, (uint64_t)major << 32 | minor,
             inode << 8 | (shared ? MAP_SHARED : MAP_PRIVATE) << 4 | rights | PROT_READ, path ? path : "");
    }
    fclose(maps);
}

/* Where the file's first bytes lie. */
static uint64_t place_of(const char *path) {
    char line[PATH_MAX + 128], real[PATH_MAX];
    uint64_t place = 0, low, offset;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps || !realpath(path, real)) die("cannot find the program");
    while (!place && fgets(line, sizeof line, maps)) {
        char *at = strchr(line, '/');
        line[strcspn(line, "\n")] = 0;
        if (at && !strcmp(at, real) && sscanf(line, "%lx-%*x %*s %lx", &low, &offset) == 2 && !offset) place = low;
    }
    fclose(maps);
    return place;
}

/* Announce the executable segments of a program file, and write down the name of its interpreter. */
static void announce_image(const char *path, char *interpreter) {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint64_t base = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), loads = 0;
    if (fd < 0 || pread(fd, &header, sizeof header, 0) != sizeof header) die("cannot read the program");
    for (int i = 0; i < header.e_phnum; i++) {
        if (pread(fd, &segment, sizeof segment, header.e_phoff + i * sizeof segment) != sizeof segment) die("cannot read the program");
        if (segment.p_type == PT_INTERP) {
            ssize_t got = pread(fd, interpreter, segment.p_filesz < PATH_MAX ? segment.p_filesz : PATH_MAX - 1, segment.p_offset);
            interpreter[got < 0 ? 0 : got] = 0;
        }
        if (segment.p_type != PT_LOAD) continue;
        if (!loads++ && header.e_type == ET_DYN) base = place_of(path) - (segment.p_vaddr - segment.p_offset);
        if (!(segment.p_flags & PF_X)) continue;
        uint64_t low = (base + segment.p_vaddr) & -4096ul, high = (base + segment.p_vaddr + segment.p_filesz + 4095) & -4096ul;
        announce(low, high, PROT_READ | PROT_EXEC | (segment.p_flags & PF_W ? PROT_WRITE : 0));
    }
    close(fd);
}

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
    home[slot] = number[id] = id;
    for (unsigned i = 0; i < handlers_used; i++)
        if (handlers[i] == b->start) number[id] |= WATCHED;
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
    const struct range *range = range_of(b.start), *end = range_of(b.end - 1);
    if (started && (!range || !end)) {
        announce(b.start & -4096ul, ((b.end - 1) | 4095) + 1, PROT_READ | PROT_WRITE | PROT_EXEC);
        range = end = NULL;
    }
    uint32_t id = describe(&b, sizes);
    if (range && end && range->plain && end->plain) {
        qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block_entry, CB_NO_REGS, &number[id]);
        return;
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_careful_block_entry, CB_NO_REGS, &number[id]);
    qemu_plugin_register_vcpu_insn_exec_cb(last, on_last_instruction, CB_NO_REGS, NULL);
}

/* --- processes -------------------------------------------------------------------------------------------------------------------- */

static uint64_t map_ring(void) {
    char path[PATH_MAX];
    for (uint64_t generation = 0;; generation++) {
        snprintf(path, sizeof path, "%s/ring.%d.%lu", folder, getpid(), generation);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 && errno == EEXIST) continue;
        if (fd < 0 && errno == ENOENT) gone = 1; /* the recorder has ended and taken its folder along */
        if (gone) ring = mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        else if (fd < 0 || ftruncate(fd, sizeof *ring)) die("cannot make its ring");
        else ring = mmap(NULL, sizeof *ring, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
        if (ring == MAP_FAILED) die("cannot map its ring");
        if (fd >= 0) close(fd);
        return generation;
    }
}

static void before_fork(void) {
    post_progress(here);
    post(FORKING, here, ++forks, ring->blocks, 0, 0, "");
}

static void in_child(void) {
    struct ring *before = ring;
    uint64_t parent = getppid(), generation = map_ring();
    memcpy(ring, before, sizeof(uint32_t) * 1024 + (before->blocks + 1ul) * sizeof(struct block));
    munmap(before, sizeof *before);
    memset(careful, 0, sizeof careful);
    post(FORKED, here, generation, parent, forks, 0, "");
    forks = 0;
}

static int readable(uint64_t address) {
    char byte;
    struct iovec to = {&byte, 1}, from = {(void *)address, 1};
    return address && process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

/* Words that the host's loader would take for QEMU itself. */
static int for_the_loader(const char *word) {
    return !strncmp(word, "LD_PRELOAD=", 11) || !strncmp(word, "LD_LIBRARY_PATH=", 16) || !strncmp(word, "LD_AUDIT=", 9);
}

/* Become QEMU with the next program in it; return when that program would fail to run, or run outside QEMU. */
static void follow_exec(uint64_t path_at, uint64_t argv_at, uint64_t envp_at) {
    static char path[PATH_MAX], lines[5][256]; /* fs/exec.c follows five #! lines */
    char own[64], **argv, **envp, *head = NULL;
    unsigned argc = 0, variables = 0, scripts = 0;
    struct stat st;
    if (!readable(path_at)) return;
    for (argv = (char **)argv_at; readable((uint64_t)(argv + argc)) && argv[argc]; argc++)
        if (!readable((uint64_t)argv[argc])) return;
    for (envp = (char **)envp_at; readable((uint64_t)(envp + variables)) && envp[variables]; variables++)
        if (!readable((uint64_t)envp[variables])) return;
    const char *name = (char *)path_at;
    snprintf(own, sizeof own, "/proc/%d/exe", getpid());
    if (!strcmp(name, "/proc/self/exe") || !strcmp(name, own)) name = qemu_plugin_path_to_binary();
    snprintf(path, sizeof path, "%s", name);
    char **all = malloc((argc + variables * 2 + prefix_words + 32) * sizeof *all), **room = all + prefix_words + variables * 2 + 2;
    char **words = room + 16, **variable = malloc((variables + 1) * sizeof *variable);
    if (!all || !variable) die("has no memory");
    words[0] = "";
    for (unsigned i = 0; i < argc; i++) words[i] = argv[i];
    words[argc ? argc : 1] = NULL;
    for (;;) {
        if (stat(path, &st) || !S_ISREG(st.st_mode) || access(path, X_OK)) goto no;
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        head = memset(lines[scripts], 0, sizeof *lines);
        ssize_t got = fd < 0 ? 0 : read(fd, head, sizeof *lines - 1);
        if (fd >= 0) close(fd);
        if (got < 2 || head[0] != '#' || head[1] != '!' || scripts == 4) break;
        char *interpreter = head + 2 + strspn(head + 2, " \t"), *rest;
        interpreter[strcspn(interpreter, "\n")] = 0;
        for (rest = interpreter + strlen(interpreter); rest > interpreter && strchr(" \t", rest[-1]);) *--rest = 0;
        rest = interpreter + strcspn(interpreter, " \t");
        if (*rest) *rest++ = 0, rest += strspn(rest, " \t");
        if (!(words[0] = strdup(path))) die("has no memory");
        if (*rest) *--words = rest;
        *--words = interpreter;
        snprintf(path, sizeof path, "%s", interpreter);
        scripts++;
    }
    post_progress(here);
    Elf64_Ehdr *header = (Elf64_Ehdr *)head;
    if (memcmp(head, ELFMAG, SELFMAG) || head[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64) {
        post(UNFOLLOWED, 0, 0, 0, 0, 0, path);
        goto no;
    }
    if (st.st_mode & (S_ISUID | S_ISGID)) post(UNPRIVILEGED, 0, 0, 0, 0, 0, path);
    post(EXEC, 0, 0, 0, 0, 0, (char *)name);
    /* QEMU's own words, -E for what its loader must not see, -0 NAME PATH, the program's words. */
    char **at = all, *arguments0 = words[0];
    unsigned kept = 0;
    for (unsigned i = 0; i < prefix_words; i++) *at++ = prefix[i];
    for (unsigned i = variables; i--;) /* last first: QEMU hands them on the other way round */
        if (for_the_loader(envp[i]) && !strchr(envp[i], ',')) *at++ = "-E", *at++ = envp[i];
        else variable[kept++] = envp[i];
    variable[kept] = NULL;
    *at++ = "-0", *at++ = arguments0, *at++ = path;
    unsigned count = 1;
    while (words[count - 1] && words[count]) memmove(at++, &words[count++], sizeof *at);
    *at = NULL;
    execve("/proc/self/exe", all, variable);
    post(UNFOLLOWED, 0, 0, 0, 0, 0, path);
no:
    free(all);
    free(variable);
}

static void on_syscall(plugin_id plugin, unsigned cpu, int64_t call, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
                       uint64_t g, uint64_t h) {
    (void)plugin, (void)d, (void)e, (void)f, (void)g, (void)h;
    here = cpu;
    argument[0] = a, argument[1] = b, argument[2] = c;
    put(cpu, call == SYS_rt_sigreturn ? SIGRETURN : SYSCALL);
    if (call == SYS_execve) follow_exec(a, b, c);
    if (call == SYS_exit) {
        post_progress(cpu);
        post(THREAD_ENDED, cpu, 0, 0, 0, 0, "");
    }
}

static void watch(uint64_t handler) {
    for (unsigned i = 0; i < handlers_used; i++)
        if (handlers[i] == handler) return;
    if (handlers_used == sizeof handlers / sizeof *handlers) die("knows too many signal handlers");
    handlers[handlers_used++] = handler;
    for (uint32_t id = 1; id <= ring->blocks; id++)
        if (ring->block[id].start == handler) number[id] |= WATCHED;
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
    if (cpu >= cpus) cpus = cpu + 1;
}

static void at_end(plugin_id plugin, void *userdata) {
    (void)plugin, (void)userdata;
    for (unsigned cpu = 0; cpu < cpus; cpu++)
        if (ring->stream[cpu].next || ring->stream[cpu].laps) post_progress(cpu);
    post(EXITED, 0, 0, 0, 0, 0, "");
}

/* The first block of the program: everything is mapped, nothing has run. */
static void start(const struct registers *r) {
    char interpreter[PATH_MAX] = "", none[PATH_MAX];
    started = 1;
    if (r->rip != ring->block[1].start) {
        dprintf(2, "archlbr: this QEMU keeps its registers elsewhere: record with --engine unicorn\n");
        _exit(70);
    }
    const char *path = qemu_plugin_path_to_binary(), *slash = strrchr(path, '/');
    prctl(PR_SET_NAME, slash ? slash + 1 : path); /* as execve names it */
    announce_image(path, interpreter);
    if (*interpreter) announce_image(interpreter, none);
}

EXPORT int qemu_plugin_install(plugin_id plugin, const void *info, int argc, char **argv) {
    static char words[8192];
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "folder=", 7)) folder = strdup(argv[i] + 7);
        if (!strncmp(argv[i], "words=", 6)) prefix_words = atoi(argv[i] + 6);
    }
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, words, sizeof words - 1);
    if (!folder || size < 0 || !(prefix = calloc(prefix_words + 1, sizeof *prefix))) return -1;
    close(fd);
    char *at = words;
    for (unsigned i = 0; i < prefix_words; i++, at += strlen(at) + 1) prefix[i] = at;
    uint64_t generation = map_ring();
    post(BEGUN, 0, generation, 0, 0, 0, "");
    pthread_atfork(before_fork, NULL, in_child);
    qemu_plugin_register_vcpu_init_cb(plugin, on_cpu);
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(plugin, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(plugin, on_syscall_return);
    qemu_plugin_register_atexit_cb(plugin, at_end, NULL);
    return 0;
}
