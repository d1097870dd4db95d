/* What becomes of a process: its forks go on in rings of their own, and execve becomes QEMU with the next program. */
#include "plugin.h"
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char **prefix; /* QEMU's own words on the command line */
static unsigned prefix_words, forks;
__thread unsigned here;

static void before_fork(void) {
    post_progress(here);
    post(FORKING, here, ++forks, ring->blocks, 0, 0, "");
}

static void in_child(void) {
    struct ring *before = ring;
    uint64_t parent = getppid(), generation = map_ring();
    memcpy(ring, before, offsetof(struct ring, block) + (before->blocks + 1ul) * sizeof(struct block));
    munmap(before, sizeof *before);
    forget_careful_blocks();
    begin_counting(here, 1);
    post(FORKED, here, generation, parent, forks, 0, "");
    forks = 0;
}

static int readable(uint64_t address) {
    char byte;
    struct iovec to = {&byte, 1}, from = {(void *)address, 1};
    return address && process_vm_readv(getpid(), &to, 1, &from, 1, 0) == 1;
}

/* Variables that the host's loader, or QEMU, would take for itself, though they are meant for the program: they travel with HIDDEN
 * for their first letter, which the program's first block puts back on its stack. (QEMU's -E splits a value at its commas.) */
static const char *const taken[] = {"LD_", "QEMU_"};
#define KINDS (sizeof taken / sizeof *taken)

static char *hide(char *variable) {
    for (unsigned i = 0; i < KINDS; i++)
        if (!strncmp(variable, taken[i], strlen(taken[i]))) {
            if (!(variable = strdup(variable))) die("has no memory");
            *variable = HIDDEN;
            break;
        }
    return variable;
}

void reveal(uint64_t stack) { /* argc, argv, a null, envp, a null (System V ABI, 3.4.1) */
    for (char **variable = (char **)stack + *(uint64_t *)stack + 2; *variable; variable++)
        for (unsigned i = 0; i < KINDS; i++)
            if (**variable == HIDDEN && !strncmp(*variable + 1, taken[i] + 1, strlen(taken[i] + 1))) **variable = *taken[i];
}

void follow_forks(void) { pthread_atfork(before_fork, NULL, in_child); }

/* Keep QEMU's own words, in which the plugin's are told the next time that it is not the first program. */
void keep_words(unsigned count) {
    static char words[8192], ours[PATH_MAX];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, words, sizeof words - 1);
    if (size < 0 || !(prefix = calloc(count + 1, sizeof *prefix))) die("cannot read its command line");
    close(fd);
    char *at = words;
    for (prefix_words = 0; prefix_words < count; at += strlen(at) + 1) prefix[prefix_words++] = at;
    for (unsigned i = 1; i < count; i++)
        if (!strcmp(prefix[i - 1], "-plugin") && !strstr(prefix[i], ",again")) {
            snprintf(ours, sizeof ours, "%s,again=1", prefix[i]);
            prefix[i] = ours;
        }
}

/* Become QEMU with the next program in it; return when that program would fail to run, or run outside QEMU. */
void follow_exec(uint64_t path_at, uint64_t argv_at, uint64_t envp_at) {
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
    char **all = malloc((argc + prefix_words + 32) * sizeof *all), **room = all + prefix_words + 2;
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
    /* QEMU's own words, -0 NAME PATH, the program's words. */
    char **at = all, *arguments0 = words[0];
    for (unsigned i = 0; i < prefix_words; i++) *at++ = prefix[i];
    for (unsigned i = 0; i < variables; i++) variable[variables - 1 - i] = hide(envp[i]); /* QEMU hands them on the other way round */
    variable[variables] = NULL;
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
