/* A C library at work: formatted output, the heap, strings, sorting, conversions. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int by_length(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    size_t m = strlen(x), n = strlen(y);
    return m != n ? (m > n) - (m < n) : strcmp(x, y);
}

int main(void) {
    static const char *words[] = {"branch", "record", "last", "of", "architectural", "a", "stack", "deep"};
    size_t count = sizeof words / sizeof *words, total = 0;
    qsort(words, count, sizeof *words, by_length);
    char *joined = calloc(1, 128);
    for (size_t i = 0; i < count; i++) {
        strcat(joined, words[i]);
        strcat(joined, i + 1 < count ? " " : "");
        total += strlen(words[i]);
    }
    for (char *c = joined; *c; c++) *c = (char)toupper((unsigned char)*c);
    printf("%s: %zu letters, %.3f a word\n", joined, total, (double)total / (double)count);
    void *blocks[16];
    for (int i = 0; i < 16; i++) memset(blocks[i] = malloc((size_t)(i * 97 + 1)), i, (size_t)(i * 97 + 1));
    for (int i = 0; i < 16; i += 2) free(blocks[i]);
    for (int i = 1; i < 16; i += 2) blocks[i] = realloc(blocks[i], 4000), free(blocks[i]);
    char *comma = strchr("one,two", ','), buffer[32];
    snprintf(buffer, sizeof buffer, "%ld/%s", strtol("0x2a", NULL, 16), comma ? comma + 1 : "?");
    puts(buffer);
    free(joined);
    return strcmp(buffer, "42/two") == 0 ? 7 : 1;
}
