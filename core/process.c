#include "core/process.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

static void memory_read(struct process_facts *out)
{
    char               text[128];
    unsigned long long pages_virtual, pages_resident;
    uint64_t           page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (got <= 0) return;
    text[got] = '\0';
    if (sscanf(text, "%llu %llu", &pages_virtual, &pages_resident) != 2) return;
    out->virtual_bytes = pages_virtual * page_bytes;
    out->resident_bytes = pages_resident * page_bytes;
}

static void fds_count(struct process_facts *out)
{
    DIR           *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    if (dir == NULL) return;
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] != '.') out->fds_open++;
    }
    if (out->fds_open > 0) out->fds_open--;          /* the one that lists them */
    closedir(dir);
}

void process_read(struct process_facts *out)
{
    struct rusage usage;
    struct rlimit limit;

    *out = (struct process_facts){0};
    memory_read(out);
    fds_count(out);
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        out->cpu_us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
                      (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) out->fds_max = limit.rlim_cur;
}

/* The figure of "Name:   123 kB" in bytes; 0 when it is not there. */
static uint64_t meminfo_field(const char *text, const char *name)
{
    const char        *line = strstr(text, name);
    unsigned long long kib;

    if (line == NULL || sscanf(line + strlen(name), " %llu", &kib) != 1) return 0;
    return (uint64_t)kib * 1024;
}

void process_host_read(struct process_host *out)
{
    char text[1024];

    *out = (struct process_host){0};
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (got <= 0) return;
    text[got] = '\0';
    out->memory_bytes = meminfo_field(text, "MemTotal:");
    out->free_bytes = u64_min(meminfo_field(text, "MemAvailable:"), out->memory_bytes);
}
