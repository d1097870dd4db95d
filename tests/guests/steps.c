/* Does one thing, named by argv[1], that an engine which starts at main may refuse: loop, fork, exec, handler, code, gs, early and others. */
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_signal(int number) { (void)number; }
static void *count(void *argument) {
    volatile int left = 40;
    while (left) left--;
    return argument;
}
static void *asleep(void *argument) { pause(); return argument; }
static void last_words(void) { puts("behind exit"); }

__attribute__((constructor)) static void early(int argc, char **argv) {
    pthread_t thread;
    if (argc > 1 && !strcmp(argv[1], "early")) pthread_create(&thread, NULL, asleep, NULL);
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    puts("begun");
    fflush(stdout);
    if (!strcmp(what, "loop")) {
        long count = 10, sum = 0;
        __asm__ volatile("1: inc %1\n jmp 2f\n 2: loop 1b" : "+c"(count), "+r"(sum));
        printf("%ld\n", sum);
    } else if (!strcmp(what, "counter")) { /* branches on RCX that leave the flags alone, and a call of what follows */
        long count = 10, sum = 0;
        __asm__ volatile("1: jrcxz 2f\n inc %1\n dec %0\n call 3f\n 3: lea 8(%%rsp), %%rsp\n jmp 1b\n 2:" : "+c"(count), "+r"(sum));
        printf("%ld\n", sum);
    } else if (!strcmp(what, "fork")) {
        if (!fork()) _exit(3);
        wait(NULL);
    } else if (!strcmp(what, "exec")) {
        execl("/bin/true", "true", NULL);
    } else if (!strcmp(what, "handler")) {
        signal(SIGUSR1, on_signal);
        raise(SIGUSR1);
    } else if (!strcmp(what, "bare")) { /* past the C library's function */
        struct { void (*handler)(int); long flags, restorer, mask; } action = {on_signal, 0, 0, 0};
        syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8);
    } else if (!strcmp(what, "code")) {
        unsigned char *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        code[0] = 0xC3;
        mprotect(code, 4096, PROT_READ | PROT_EXEC);
        ((void (*)(void))code)();
    } else if (!strcmp(what, "gs")) {
        syscall(SYS_arch_prctl, 0x1001, &what);
    } else if (!strcmp(what, "cancel")) {
        pthread_t thread;
        pthread_create(&thread, NULL, asleep, NULL);
        pthread_cancel(thread);
        pthread_join(thread, NULL);
    } else if (!strcmp(what, "name")) {
        pthread_t thread;
        prctl(PR_SET_NAME, "another");
        pthread_create(&thread, NULL, count, NULL);
        pthread_join(thread, NULL);
    } else if (!strcmp(what, "exit")) {
        atexit(last_words);
        exit(5);
    } else if (!strcmp(what, "abort")) {
        abort();
    } else if (!strcmp(what, "library")) {
        dlopen("libutil.so.1", RTLD_NOW);
    } else if (!strcmp(what, "exception")) { /* a software interrupt */
        __asm__ volatile("int $0x80" : : "a"(20) : "memory");
    } else if (!strcmp(what, "crash")) {
        *(volatile int *)8 = 1;
    }
    return 4;
}
