/* Forks: each child works for itself, the parent waits and adds up. */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((noinline)) static int collatz(int n) {
    int steps = 0;
    for (; n != 1; steps++) n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}

int main(void) {
    int sum = 0, status;
    for (int i = 0; i < 3; i++) {
        pid_t child = fork();
        if (child == 0) _exit(collatz(7 + 20 * i) & 0x7f);
        waitpid(child, &status, 0);
        sum = sum * 3 + WEXITSTATUS(status) + collatz(i + 3);
    }
    printf("%d\n", sum);
    return sum & 0x7f;
}
