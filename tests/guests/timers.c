/* Time and signals from outside: SIGALRM into a busy loop, into a blocking read, nanosleep, a timer that repeats, SIGCHLD. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t alarms, children;
static void on_alarm(int signal) { alarms += signal == SIGALRM; }
static void on_child(int signal) { children += signal == SIGCHLD; }

int main(void) {
    int fds[2];
    char byte;
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval once = {.it_value = {.tv_usec = 20000}};
    setitimer(ITIMER_REAL, &once, NULL);
    volatile unsigned long spins = 0;
    while (!alarms) spins++; /* no system call in here */
    int busy = alarms;
    if (pipe(fds)) return 90;
    setitimer(ITIMER_REAL, &once, NULL);
    int interrupted = read(fds[0], &byte, 1) < 0 && errno == EINTR;
    struct timespec nap = {.tv_nsec = 30000000}, start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    int slept = nanosleep(&nap, NULL) == 0;
    clock_gettime(CLOCK_MONOTONIC, &end);
    long passed = (end.tv_sec - start.tv_sec) * 1000 + (end.tv_nsec - start.tv_nsec) / 1000000;
    struct itimerval repeated = {.it_value = {.tv_usec = 5000}, .it_interval = {.tv_usec = 5000}};
    int before = alarms;
    setitimer(ITIMER_REAL, &repeated, NULL);
    while (alarms < before + 4) pause();
    struct itimerval none = {0};
    setitimer(ITIMER_REAL, &none, NULL);
    action.sa_handler = on_child;
    sigaction(SIGCHLD, &action, NULL);
    pid_t child = fork();
    if (child == 0) _exit(0);
    while (!children) usleep(1000);
    wait(NULL);
    struct pollfd nothing = {.fd = fds[0], .events = POLLIN};
    int timed_out = poll(&nothing, 1, 10) == 0;
    printf("%d %d %d %d %d %d %d\n", busy, spins > 0, interrupted, slept, passed >= 30, children > 0, timed_out);
    return 5;
}
