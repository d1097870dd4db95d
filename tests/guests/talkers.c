/* Two threads that block on each other through pipes and poll, and a fork out of a process that has threads. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static int there[2], back[2];

static void *answer(void *unused) {
    int value;
    while (read(there[0], &value, sizeof value) == sizeof value && value >= 0) {
        value = value * 3 + 1;
        if (write(back[1], &value, sizeof value) != sizeof value) break;
    }
    return unused;
}

int main(void) {
    pthread_t thread;
    int value = 1, sum = 0, status;
    if (pipe(there) || pipe(back)) return 90;
    pthread_create(&thread, NULL, answer, NULL);
    for (int i = 0; i < 50; i++) {
        struct pollfd ready = {.fd = back[0], .events = POLLIN};
        if (write(there[1], &value, sizeof value) != sizeof value) return 91;
        if (poll(&ready, 1, 10000) != 1 || read(back[0], &value, sizeof value) != sizeof value) return 92;
        value &= 0xffff;
        sum += value;
    }
    pid_t child = fork(); /* the other thread blocks in read meanwhile */
    if (child == 0) {
        printf("child %d\n", sum & 0xff);
        fflush(stdout);
        _exit(sum & 0x3f);
    }
    waitpid(child, &status, 0);
    value = -1;
    if (write(there[1], &value, sizeof value) != sizeof value) return 93;
    pthread_join(thread, NULL);
    printf("%d %d\n", sum, WEXITSTATUS(status) == (sum & 0x3f));
    return 8;
}
