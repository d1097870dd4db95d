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
        long count = 10, sum = 0, high = 0;
        __asm__ volatile("1: inc %1\n jmp 2f\n 2: loop 1b" : "+c"(count), "+r"(sum)); /* over an inner jump */
        count = 70; /* ADC counts on the carry that LOOP leaves alone */
        __asm__ volatile("stc\n 1: adc $0, %1\n rcl %2\n loop 1b" : "+c"(count), "+r"(sum), "+r"(high) : : "cc");
        for (long met = 0; met < 6; met++) { /* ended by the count, by ZF, by both at once */
            long left = 5, more = 5;
            __asm__ volatile("1: inc %1\n cmp %2, %0\n loopne 1b" : "+c"(left), "+r"(sum) : "r"(met) : "cc");
            __asm__ volatile("1: inc %1\n bt %0, %2\n setnc %%al\n cmp $1, %%al\n loope 1b"
                             : "+c"(more), "+r"(sum) : "r"(1L << met) : "cc", "rax");
            count = 10 * count + left + more;
        }
        printf("%ld %ld %ld\n", sum, high, count);
    } else if (!strcmp(what, "prefixed")) {
        long count = 3;
        __asm__ volatile("1: addr32 loop 1b" : "+c"(count));
    } else if (!strcmp(what, "segment")) {
        __asm__ volatile("mov %%gs:8, %%rax" : : : "rax");
    } else if (!strcmp(what, "gsbase")) {
        __asm__ volatile("wrgsbase %0" : : "r"(0L));
    } else if (!strcmp(what, "readgs")) {
        long base;
        __asm__ volatile("rdgsbase %0" : "=r"(base));
    } else if (!strcmp(what, "fsbase")) {
        long base;
        __asm__ volatile("rdfsbase %0\n wrfsbase %0" : "=r"(base));
    } else if (!strcmp(what, "fs")) {
        syscall(SYS_arch_prctl, 0x1002, &what);
    } else if (!strcmp(what, "transaction")) {
        __asm__ volatile("xbegin 1f\n 1:" : : : "eax");
    } else if (!strcmp(what, "user")) {
        if (setuid(getuid())) return 5;
    } else if (!strcmp(what, "unmap")) {
        munmap((void *)((unsigned long)main & -4096), 4096);
    } else if (!strcmp(what, "clone")) {
        syscall(SYS_clone, 0x10f00 /* CLONE_VM | FS | FILES | SIGHAND | THREAD */, 0, 0, 0, 0);
    } else if (!strcmp(what, "vfork")) {
        if (!vfork()) _exit(3);
    } else if (!strcmp(what, "confine")) {
        prctl(PR_SET_SECCOMP, 1);
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
