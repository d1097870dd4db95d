/* What signal handlers find in their frames, on every kind of stack and for every fault a user program can make. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define AUTODISARM (1u << 31)

static char stacks[2][65536] __attribute__((aligned(4096)));
static sigjmp_buf out;
static volatile int nested;
static char *page;

static void tell_stack(const char *what, const stack_t *stack) {
    printf("%s: %ld flags %#x size %zu\n", what, stack->ss_sp ? (long)((char *)stack->ss_sp - stacks[0]) : -1L,
           (unsigned)stack->ss_flags, stack->ss_size);
}

static void tell(int number, siginfo_t *info, ucontext_t *context, int fault) {
    greg_t *registers = context->uc_mcontext.gregs;
    uintptr_t uc = (uintptr_t)context, fpu = (uintptr_t)context->uc_mcontext.fpregs;
    printf("signal %d code %d errno %d\n", number, info->si_code, info->si_errno);
    printf("uc %lu from the call, info %lu, fpu aligned %d, red zone %d\n", (uc - 8 + 8) % 16, (uintptr_t)info - uc,
           fpu % 64 == 0, (uintptr_t)registers[REG_RSP] - fpu >= 128 + 512 || nested || fault == 2);
    printf("flags %#lx link %p csgsfs %#llx\n", context->uc_flags & 6, (void *)context->uc_link,
           (unsigned long long)registers[REG_CSGSFS]);
    tell_stack("stack", &context->uc_stack);
    printf("mask %#lx oldmask %#llx\n", *(unsigned long *)&context->uc_sigmask, registers[REG_OLDMASK]);
    if (fault) {
        printf("trap %lld error %lld", registers[REG_TRAPNO], registers[REG_ERR]);
        if (registers[REG_TRAPNO] == 14) printf(" cr2 %lld from the page", registers[REG_CR2] - (long long)page);
        if (info->si_addr == NULL) printf(" no address\n");
        else if (info->si_addr == (void *)registers[REG_RIP]) printf(" at the instruction\n");
        else printf(" %ld from the page\n", (long)((char *)info->si_addr - page));
        uintptr_t rip = (uintptr_t)registers[REG_RIP];
        if (rip - (uintptr_t)page > 3 * 4096) printf("goes on at %02x\n", *(unsigned char *)rip);
    }
    printf("flags restored from %#llx\n", registers[REG_EFL] & 0x50dd5);
    stack_t now;
    sigaltstack(NULL, &now);
    tell_stack("now", &now);
}

static void once(int number, siginfo_t *info, void *context) {
    tell(number, info, context, 0);
    if (nested == 1) {
        nested = 2;
        raise(SIGUSR2);
    }
}

static void caught(int number, siginfo_t *info, void *context) {
    tell(number, info, context, 1);
    siglongjmp(out, 1);
}

static void stepped(int number, siginfo_t *info, void *context) { tell(number, info, context, 1); }

static void handle(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | flags;
    sigaddset(&action.sa_mask, SIGHUP);
    sigaction(number, &action, NULL);
}

static void on_stack(int which, unsigned flags) {
    stack_t stack = {.ss_sp = stacks[which], .ss_flags = (int)flags, .ss_size = sizeof stacks[which]}, old;
    printf("sigaltstack %d\n", sigaltstack(&stack, &old));
    tell_stack("old", &old);
}

#define FAULT(statement) if (!sigsetjmp(out, 1)) { statement; }

int main(void) {
    page = mmap(NULL, 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    char first = *(volatile char *)page; /* a page that was never read is not present yet */
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigprocmask(SIG_BLOCK, &set, NULL);

    handle(SIGUSR1, once, 0);
    handle(SIGUSR2, once, SA_ONSTACK);
    raise(SIGUSR1);
    raise(SIGUSR2); /* there is no alternate stack yet */
    on_stack(0, 0);
    raise(SIGUSR1);
    nested = 1;
    handle(SIGUSR2, once, SA_ONSTACK | SA_NODEFER);
    raise(SIGUSR2);
    nested = 0;
    on_stack(1, AUTODISARM);
    raise(SIGUSR2);
    raise(SIGUSR2);
    on_stack(0, SS_DISABLE);

    handle(SIGSEGV, caught, 0);
    handle(SIGFPE, caught, 0);
    handle(SIGILL, caught, 0);
    handle(SIGTRAP, stepped, 0);
    FAULT((void)*(volatile char *)(page + 4096 + 8))
    FAULT(*(volatile char *)(page + 9) = 1)
    FAULT(*(volatile char *)(page + 4096 + 10) = 1)
    FAULT(((void (*)(void))(page + 16))())
    FAULT(((void (*)(void))(page + 4096 + 16))())
    FAULT((void)*(volatile char *)(1ul << 47))
    FAULT(__asm__ volatile("cltd; idivl %0" : : "r"(0) : "eax", "edx"))
    FAULT(__asm__ volatile("ud2"))
    FAULT(__asm__ volatile("hlt"))
    FAULT(__asm__ volatile("int3"))
    FAULT(__asm__ volatile("int $0x81"))
    printf("end\n");
    return 23 + first;
}
