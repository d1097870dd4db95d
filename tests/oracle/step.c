/* A native single-stepper: runs a program under ptrace, one instruction at a time, and writes every taken branch.
 *
 *     step -o OUT [-f] [-b VADDR] [-n STEPS] -- PROGRAM ARGS
 *
 * OUT holds lines `TASK 0xFROM 0xTO KIND` in the order the steps ended, TASK being the ordinal of the thread's creation, and
 * `# mmap PID 0xSTART 0xEND 0xPGOFF PATH` for each executable mapping when it is first seen. Address space randomisation is off.
 * -f follows fork and vfork; -b runs freely up to the instruction at the link-time address VADDR and steps from there on;
 * -n ends the run with status 3 after that many steps. The exit status is the program's, as a shell would give it.
 *
 * It shares nothing with the recorder: a branch is classified from the opcode bytes at FROM, read just before the step (so code
 * that patches itself is seen as it ran), by the prefix-skipping decoder below (Intel SDM volume 2, 2.1 and appendix A).
 * A signal handler's entry, sigreturn and a system call are steps whose instruction is no branch. A conditional branch counts as
 * taken when RIP is not the next instruction, so a Jcc to its own successor reads as not taken; all other branches always count.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_TASKS 64
#define MAX_MAPS 512
#define INSTRUCTION 15 /* the longest an instruction can be */

typedef unsigned long u64;

enum state { UNUSED, HELD, RUNNING, STEPPING };

struct task {
    enum state state;
    int tid, tgid, index, memory;
    int kind, length, trap;  /* of the instruction under way: 0 = no branch */
    long syscall;            /* its number, or -1 */
    u64 from;
};

static const char *const names[] = {"NONE", "COND", "REL_JMP", "IND_JMP", "REL_CALL", "IND_CALL", "RET", "OTHER"};
enum { NONE, COND, REL_JMP, IND_JMP, REL_CALL, IND_CALL, RET, OTHER };

static struct task tasks[MAX_TASKS];
static struct { int pid; u64 start, end, offset; } seen[MAX_MAPS];
static int created, maps_seen;
static FILE *out;

static void die(const char *what) {
    fprintf(stderr, "step: %s: %s\n", what, strerror(errno));
    exit(125);
}

static int is_prefix(unsigned char b) {
    switch (b) {
    case 0x26: case 0x2e: case 0x36: case 0x3e: case 0x64: case 0x65: case 0x66: case 0x67: case 0xf0: case 0xf2: case 0xf3:
        return 1;
    }
    return 0;
}

/* Classify the instruction in bytes: its kind, and for a conditional branch its length. */
static void classify(struct task *t, const unsigned char *b, int n) {
    int i = 0;
    t->kind = NONE, t->length = 0, t->syscall = -1, t->trap = 0;
    while (i < n && is_prefix(b[i])) i++;
    if (i < n && (b[i] & 0xf0) == 0x40) i++; /* REX */
    if (i >= n) return;
    unsigned char op = b[i], next = i + 1 < n ? b[i + 1] : 0;
    if ((op & 0xf0) == 0x70 || (op >= 0xe0 && op <= 0xe3)) t->kind = COND, t->length = i + 2;
    else if (op == 0x0f && (next & 0xf0) == 0x80) t->kind = COND, t->length = i + 6;
    else if (op == 0x0f && next == 0x05) t->syscall = 0;
    else if (op == 0xe9 || op == 0xeb) t->kind = REL_JMP;
    else if (op == 0xe8) { /* CALL +0 pushes RIP: a way to read it, not a branch */
        static const unsigned char zero[4];
        t->kind = i + 5 <= n && memcmp(b + i + 1, zero, 4) == 0 ? NONE : REL_CALL;
    } else if (op == 0xc2 || op == 0xc3) t->kind = RET;
    else if (op == 0xca || op == 0xcb || op == 0xcf) t->kind = OTHER;
    else if (op == 0xcc) t->trap = 1;
    else if (op == 0xff) {
        static const unsigned char group5[8] = {NONE, NONE, IND_CALL, OTHER, IND_JMP, OTHER, NONE, NONE};
        t->kind = group5[next >> 3 & 7];
    }
}

/* Write the executable mappings of the process that were not written yet. */
static void scan_maps(int pid) {
    char path[64], line[4608], perms[8], name[4096];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *f = fopen(path, "r");
    if (!f) return;
    while (fgets(line, sizeof line, f)) {
        u64 start, end, offset;
        name[0] = 0;
        int got = sscanf(line, "%lx-%lx %7s %lx %*s %*s %4095[^\n]", &start, &end, perms, &offset, name);
        if (got < 4 || perms[2] != 'x') continue;
        int i = 0;
        while (i < maps_seen && !(seen[i].pid == pid && seen[i].start == start && seen[i].end == end && seen[i].offset == offset)) i++;
        if (i < maps_seen || maps_seen == MAX_MAPS) continue;
        seen[maps_seen].pid = pid, seen[maps_seen].start = start, seen[maps_seen].end = end, seen[maps_seen].offset = offset;
        maps_seen++;
        fprintf(out, "# mmap %d 0x%lx 0x%lx 0x%lx %s\n", pid, start, end, offset, name[0] ? name : "//anon");
    }
    fclose(f);
}

static int open_memory(int pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    return open(path, O_RDWR | O_CLOEXEC);
}

static struct task *find(int tid) {
    for (int i = 0; i < MAX_TASKS; i++)
        if (tasks[i].state != UNUSED && tasks[i].tid == tid) return &tasks[i];
    return NULL;
}

static struct task *add(int tid, enum state state) {
    for (int i = 0; i < MAX_TASKS; i++)
        if (tasks[i].state == UNUSED) {
            tasks[i] = (struct task){.state = state, .tid = tid, .tgid = tid, .index = -1, .memory = -1, .syscall = -1};
            return &tasks[i];
        }
    errno = EAGAIN;
    die("too many tasks");
    return NULL;
}

static void restart(struct task *t, int request, int signal) {
    if (ptrace(request, t->tid, 0, signal) && errno != ESRCH) die("restart");
}

/* Read the instruction that is about to run and step over it. */
static void step(struct task *t, const struct user_regs_struct *regs, int signal) {
    unsigned char bytes[INSTRUCTION];
    t->from = regs->rip;
    ssize_t n = pread(t->memory, bytes, sizeof bytes, (off_t)regs->rip);
    if (n < 0) { /* short at an unmapped page, or none at all: take what there is */
        n = 4096 - (ssize_t)(regs->rip & 4095);
        if (n >= INSTRUCTION || (n = pread(t->memory, bytes, (size_t)n, (off_t)regs->rip)) < 0) n = 0;
    }
    classify(t, bytes, (int)n);
    if (t->syscall == 0) t->syscall = (long)regs->rax;
    restart(t, PTRACE_SINGLESTEP, signal);
}

static int get_regs(struct task *t, struct user_regs_struct *regs) { return ptrace(PTRACE_GETREGS, t->tid, 0, regs) == 0; }

static void begin(struct task *t, int index, int tgid) {
    struct user_regs_struct regs;
    t->index = index, t->tgid = tgid, t->memory = open_memory(tgid), t->state = STEPPING;
    if (t->memory < 0) die("/proc/PID/mem");
    if (get_regs(t, &regs)) step(t, &regs, 0);
}

/* A step ended: write the branch, if it was one, ran and was taken. */
static void end_step(struct task *t) {
    struct user_regs_struct regs;
    siginfo_t info = {0};
    int signal = 0;
    if (!get_regs(t, &regs)) return;
    if ((t->kind != NONE || t->trap) && ptrace(PTRACE_GETSIGINFO, t->tid, 0, &info)) return;
    /* TRAP_TRACE: the processor's own single-step trap. The stop after execve, and the one at a handler's first instruction, say
     * something else: the instruction that was read has not run. */
    if (t->kind != NONE && info.si_code == TRAP_TRACE && !(t->kind == COND && regs.rip == t->from + (u64)t->length))
        fprintf(out, "%d 0x%lx 0x%llx %s\n", t->index, t->from, regs.rip, names[t->kind]);
    if (t->trap && info.si_code == SI_KERNEL) signal = SIGTRAP; /* INT3 ran: the trap is the program's own */
    switch (t->syscall) {
    case SYS_mmap: case SYS_mprotect: case SYS_mremap: case SYS_shmat: case SYS_pkey_mprotect: scan_maps(t->tgid);
    }
    step(t, &regs, signal);
}

/* Plant a breakpoint at the link-time address; return where it lies and the byte it replaces. */
static u64 plant(struct task *t, u64 vaddr, unsigned char *old) {
    char path[64], exe[4096], line[4608], name[4096];
    Elf64_Ehdr header;
    u64 bias = 0, start;
    snprintf(path, sizeof path, "/proc/%d/exe", t->tid);
    ssize_t n = readlink(path, exe, sizeof exe - 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (n < 0 || fd < 0 || read(fd, &header, sizeof header) != sizeof header) die(path);
    exe[n] = 0;
    close(fd);
    if (header.e_type == ET_DYN) {
        snprintf(path, sizeof path, "/proc/%d/maps", t->tid);
        FILE *f = fopen(path, "r");
        while (!bias && f && fgets(line, sizeof line, f)) {
            name[0] = 0;
            if (sscanf(line, "%lx-%*x %*s %*s %*s %*s %4095[^\n]", &start, name) == 2 && !strcmp(name, exe)) bias = start;
        }
        if (f) fclose(f);
    }
    if (pread(t->memory, old, 1, (off_t)(bias + vaddr)) != 1 || pwrite(t->memory, "\xcc", 1, (off_t)(bias + vaddr)) != 1) die("plant");
    return bias + vaddr;
}

int main(int argc, char **argv) {
    u64 start_at = 0, breakpoint = 0, steps = 0, limit = 2000000;
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC;
    unsigned char replaced = 0;
    const char *name = NULL;
    int c, status, result = 0;
    while ((c = getopt(argc, argv, "+o:fb:n:")) != -1) {
        if (c == 'o') name = optarg;
        else if (c == 'f') options |= PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
        else if (c == 'b') start_at = strtoul(optarg, NULL, 0);
        else if (c == 'n') limit = strtoul(optarg, NULL, 0);
        else return 125;
    }
    if (!name || optind >= argc) {
        fprintf(stderr, "usage: step -o OUT [-f] [-b VADDR] [-n STEPS] -- PROGRAM ARGS\n");
        return 125;
    }
    if (!(out = fopen(name, "we"))) die(name);
    cpu_set_t cpus; /* one processor for both: a step then costs a switch, not a wake-up across processors (four times less) */
    if (sched_getaffinity(0, sizeof cpus, &cpus)) die("sched_getaffinity");
    int cpu = 0;
    while (!CPU_ISSET(cpu, &cpus)) cpu++;
    CPU_ZERO(&cpus);
    CPU_SET(cpu, &cpus);
    if (sched_setaffinity(0, sizeof cpus, &cpus)) die("sched_setaffinity");
    int child = fork();
    if (child == 0) {
        personality(ADDR_NO_RANDOMIZE);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(argv[optind], argv + optind);
        _exit(127);
    }
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status)) die("start");
    if (ptrace(PTRACE_SETOPTIONS, child, 0, options)) die("PTRACE_SETOPTIONS");
    struct task *first = add(child, RUNNING);
    restart(first, PTRACE_CONT, 0);
    for (;;) {
        int tid = waitpid(-1, &status, __WALL);
        if (tid < 0) break; /* nobody left */
        struct task *t = find(tid);
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (tid == child) result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            if (t) {
                close(t->memory);
                t->state = UNUSED;
            }
            continue;
        }
        if (++steps > limit) {
            fprintf(stderr, "step: more than %lu steps\n", limit);
            return 3;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (!t) { /* a new thread, stopped before its creator's event: held until the event says whose it is */
            add(tid, HELD);
            continue;
        }
        if (event == PTRACE_EVENT_EXEC) {
            close(t->memory);
            scan_maps(tid);
            if (start_at && !breakpoint) {
                t->memory = open_memory(tid), t->tgid = tid, t->index = created++;
                breakpoint = plant(t, start_at, &replaced);
                restart(t, PTRACE_CONT, 0);
            } else begin(t, t->index < 0 ? created++ : t->index, tid);
        } else if (event == PTRACE_EVENT_CLONE || event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
            unsigned long id;
            if (ptrace(PTRACE_GETEVENTMSG, tid, 0, &id)) die("PTRACE_GETEVENTMSG");
            struct task *n = find((int)id);
            int tgid = event == PTRACE_EVENT_CLONE ? t->tgid : (int)id;
            if (n) begin(n, created++, tgid);
            else (n = add((int)id, RUNNING))->index = created++, n->tgid = tgid;
            restart(t, t->state == STEPPING ? PTRACE_SINGLESTEP : PTRACE_CONT, 0);
        } else if (event) {
            restart(t, t->state == STEPPING ? PTRACE_SINGLESTEP : PTRACE_CONT, 0);
        } else if (t->state == RUNNING && t != first && signal == SIGSTOP) { /* a new thread's first stop */
            begin(t, t->index, t->tgid);
        } else if (t->state == RUNNING) {
            struct user_regs_struct regs;
            if (signal == SIGTRAP && breakpoint && get_regs(t, &regs) && regs.rip == breakpoint + 1) {
                regs.rip--;
                if (pwrite(t->memory, &replaced, 1, (off_t)breakpoint) != 1 || ptrace(PTRACE_SETREGS, tid, 0, &regs)) die("breakpoint");
                scan_maps(tid);
                t->state = STEPPING;
                step(t, &regs, 0);
            } else restart(t, PTRACE_CONT, signal);
        } else if (signal == SIGTRAP) end_step(t);
        else { /* a signal before the instruction ran: what was read is dropped, the handler or the same instruction comes next */
            struct user_regs_struct regs;
            if (get_regs(t, &regs)) step(t, &regs, signal);
        }
    }
    fprintf(out, "# steps %lu\n", steps);
    if (fclose(out)) die(name);
    return result;
}
