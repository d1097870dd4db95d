/* Where code lies, and which of it can change: mappings, as messages to the reader and as the ranges that translation asks for. */
#include "plugin.h"
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct range *ranges;
static unsigned ranges_used, ranges_room;

static void add_range(uint64_t start, uint64_t end, int plain) {
    if (ranges_used == ranges_room && !(ranges = realloc(ranges, (ranges_room += 256) * sizeof *ranges))) die("has no memory");
    ranges[ranges_used++] = (struct range){start, end, plain};
}

void remove_range(uint64_t start, uint64_t end) {
    for (unsigned i = 0, n = ranges_used; i < n; i++) {
        struct range r = ranges[i];
        if (r.start >= end || r.end <= start) continue;
        ranges[i].end = r.start < start ? start : r.start;
        if (r.end > end) add_range(end, r.end, r.plain);
    }
    for (unsigned i = 0; i < ranges_used;)
        if (ranges[i].start >= ranges[i].end) ranges[i] = ranges[--ranges_used];
        else i++;
}

const struct range *range_of(uint64_t address) {
    for (unsigned i = 0; i < ranges_used; i++)
        if (address >= ranges[i].start && address < ranges[i].end) return &ranges[i];
    return NULL;
}

/* Tell of executable memory in [start, end), as the host's own list of mappings has it: guest memory lies at its own addresses. */
void announce(uint64_t start, uint64_t end, int rights) {
    char line[PATH_MAX + 128];
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps) die("cannot read /proc/self/maps");
    while (fgets(line, sizeof line, maps)) {
        uint64_t low, high, offset, inode;
        unsigned major, minor;
        char flags[8], *path;
        if (sscanf(line, "%lx-%lx %7s %lx %x:%x %lu", &low, &high, flags, &offset, &major, &minor, &inode) != 7) continue;
        if (high <= start || low >= end) continue;
        path = strchr(line, '/');
        line[strcspn(line, "\n")] = 0;
        uint64_t from = low > start ? low : start, to = high < end ? high : end;
        int shared = flags[3] == 's', known = range_of(from) != NULL;
        remove_range(from, to);
        add_range(from, to, !(rights & PROT_WRITE) && !shared);
        if (known) continue; /* it was executable before */
        if (path) offset += from - low;
        post(MAPPED, from, to, path ? offset : 0, (uint64_t)major << 32 | minor,
             inode << 8 | (shared ? MAP_SHARED : MAP_PRIVATE) << 4 | rights | PROT_READ, path ? path : "");
    }
    fclose(maps);
}

/* Where the file's first bytes lie. */
static uint64_t place_of(const char *path) {
    char line[PATH_MAX + 128], real[PATH_MAX];
    uint64_t place = 0, low, offset;
    FILE *maps = fopen("/proc/self/maps", "re");
    if (!maps || !realpath(path, real)) die("cannot find the program");
    while (!place && fgets(line, sizeof line, maps)) {
        char *at = strchr(line, '/');
        line[strcspn(line, "\n")] = 0;
        if (at && !strcmp(at, real) && sscanf(line, "%lx-%*x %*s %lx", &low, &offset) == 2 && !offset) place = low;
    }
    fclose(maps);
    return place;
}

/* Announce the executable segments of a program file, and write down the name of its interpreter. */
static void announce_image(const char *path, char *interpreter) {
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint64_t base = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), loads = 0;
    if (fd < 0 || pread(fd, &header, sizeof header, 0) != sizeof header) die("cannot read the program");
    for (int i = 0; i < header.e_phnum; i++) {
        if (pread(fd, &segment, sizeof segment, header.e_phoff + i * sizeof segment) != sizeof segment) die("cannot read the program");
        if (segment.p_type == PT_INTERP) {
            ssize_t got = pread(fd, interpreter, segment.p_filesz < PATH_MAX ? segment.p_filesz : PATH_MAX - 1, segment.p_offset);
            interpreter[got < 0 ? 0 : got] = 0;
        }
        if (segment.p_type != PT_LOAD) continue;
        if (!loads++ && header.e_type == ET_DYN) base = place_of(path) - (segment.p_vaddr - segment.p_offset);
        if (!(segment.p_flags & PF_X)) continue;
        uint64_t low = (base + segment.p_vaddr) & -4096ul, high = (base + segment.p_vaddr + segment.p_filesz + 4095) & -4096ul;
        announce(low, high, PROT_READ | PROT_EXEC | (segment.p_flags & PF_W ? PROT_WRITE : 0));
    }
    close(fd);
}

/* Announce the program's own code and its interpreter's. */
void announce_program(const char *path) {
    char interpreter[PATH_MAX] = "", none[PATH_MAX];
    announce_image(path, interpreter);
    if (*interpreter) announce_image(interpreter, none);
}
