/* SIGSEGV handlers that mend the page and return, that leave by siglongjmp, that move RIP; SIGFPE, SIGILL and SIGTRAP too. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf out;
static char *page;
static volatile int mended, jumped, skipped, codes[4];

static void mend(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    codes[0] = info->si_code;
    if ((char *)((uintptr_t)info->si_addr & ~4095ul) != page) siglongjmp(out, 2);
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    mended++;
}

static void leave(int signal, siginfo_t *info, void *context) {
    (void)context;
    codes[1] = info->si_code;
    siglongjmp(out, signal);
}

static void skip(int signal, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    codes[signal == SIGILL ? 2 : 3] = info->si_code;
    if (signal == SIGILL) uc->uc_mcontext.gregs[REG_RIP] += 2; /* UD2; INT3 has run when its signal comes */
    skipped++;
}

static void handle(int signal, void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(signal, &action, NULL);
}

int main(void) {
    page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    handle(SIGSEGV, mend);
    for (int i = 0; i < 4; i++) {
        page[i] = (char)i; /* faults, is mended, runs again */
        mprotect(page, 4096, PROT_NONE);
    }
    handle(SIGSEGV, leave);
    for (volatile int i = 0; i < 3; i++) {
        int came = sigsetjmp(out, 1);
        if (came) jumped += came;
        else *(volatile int *)(16 + i) = 1;
    }
    handle(SIGFPE, leave);
    volatile int zero = 0;
    int came = sigsetjmp(out, 1);
    if (came) jumped += came;
    else jumped += 1000 / zero;
    handle(SIGILL, skip);
    handle(SIGTRAP, skip);
    __asm__ volatile("ud2");
    __asm__ volatile("int3");
    __asm__ volatile("ud2");
    printf("%d %d %d: %d %d %d %d\n", mended, jumped, skipped, codes[0], codes[1], codes[2], codes[3]);
    return jumped;
}
