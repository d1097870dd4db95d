/* Three threads with their own work, thread-local storage, a mutex, a condition and a barrier; each thread's own branches are the
 * same in every schedule: nothing in this file's code waits in a loop whose count depends on it. */
#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_barrier_t barrier;
static __thread int mine;
static long shared;

__attribute__((noinline)) static int collatz(int n) {
    int steps = 0;
    for (; n != 1; steps++) n = n % 2 ? 3 * n + 1 : n / 2;
    return steps;
}

static void *work(void *argument) {
    int id = (int)(long)argument;
    for (int i = 1; i < 40; i++) mine += collatz(i * id + 1);
    for (int i = 0; i < 50; i++) {
        pthread_mutex_lock(&lock);
        shared += id;
        pthread_mutex_unlock(&lock);
    }
    pthread_barrier_wait(&barrier);
    return (void *)(long)mine;
}

int main(void) {
    pthread_t threads[3];
    pthread_barrier_init(&barrier, NULL, 4);
    for (long i = 0; i < 3; i++) pthread_create(&threads[i], NULL, work, (void *)(i + 1));
    pthread_barrier_wait(&barrier);
    long sum = 0;
    for (int i = 0; i < 3; i++) {
        void *value;
        pthread_join(threads[i], &value);
        sum = sum * 7 + (long)value;
    }
    printf("%ld %ld %d\n", sum, shared, mine);
    return (int)(shared % 97);
}
