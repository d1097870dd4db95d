/* Handlers: raised signals with siginfo, nested delivery under a mask, an alternate stack, SA_RESETHAND, SIG_IGN. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int usr1, usr2, nested, on_alternate, sent_by_us;
static char *alternate;

static void on_usr2(int signal) {
    usr2 += signal == SIGUSR2;
    nested += usr1 & 1;
}

static void on_usr1(int signal, siginfo_t *info, void *context) {
    ucontext_t *uc = context;
    char here;
    on_alternate += &here >= alternate && &here < alternate + 65536;
    sent_by_us += info->si_pid == getpid() && info->si_signo == signal && uc->uc_mcontext.gregs[REG_RSP] != 0;
    usr1++;
    raise(SIGUSR2); /* blocked while this handler runs: delivered as it returns */
}

int main(void) {
    alternate = malloc(65536);
    stack_t stack = {.ss_sp = alternate, .ss_size = 65536};
    sigaltstack(&stack, NULL);
    struct sigaction one = {.sa_sigaction = on_usr1, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    struct sigaction two = {.sa_handler = on_usr2};
    sigaddset(&one.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &one, NULL);
    sigaction(SIGUSR2, &two, NULL);
    signal(SIGHUP, SIG_IGN);
    for (int i = 0; i < 5; i++) {
        raise(SIGUSR1);
        raise(SIGHUP);
    }
    sigset_t block, old, pending;
    sigemptyset(&block);
    sigaddset(&block, SIGUSR2);
    sigprocmask(SIG_BLOCK, &block, &old);
    raise(SIGUSR2);
    sigpending(&pending);
    int waiting = sigismember(&pending, SIGUSR2), before = usr2;
    sigprocmask(SIG_SETMASK, &old, NULL);
    int after = usr2;
    struct sigaction once = {.sa_handler = on_usr2, .sa_flags = SA_RESETHAND};
    sigaction(SIGUSR2, &once, NULL);
    raise(SIGUSR2);
    struct sigaction now;
    sigaction(SIGUSR2, NULL, &now);
    printf("%d %d %d %d %d %d %d %d %d\n", usr1, usr2, nested, on_alternate, sent_by_us, waiting, before, after, now.sa_handler == SIG_DFL);
    return usr1 * 10 + usr2;
}
