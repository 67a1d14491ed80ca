/* driver.c - runs a fuzz target without libFuzzer: the corpus, then seeded mutations of it.
 *
 * Usage    fuzz_x [--expect-abort] PATH [ROUNDS [SEED]]    PATH: a corpus directory or one file
 *
 * Works with every compiler and sanitizer. It is bounded by rounds, never by time, so equal
 * arguments always do equal work; a failure prints what is needed to replay it. With
 * --expect-abort the run passes only if the target aborts: that is how the canary shows that the
 * driver can find a defect at all.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILES_MAX = 4096, INPUT_BYTES_MAX = 1 << 16, MUTATIONS_MAX = 4, DUMP_BYTES_MAX = 2048 };

struct input {
    uint8_t *ptr;
    size_t   bytes;
};

static struct input files[FILES_MAX];
static uint32_t files_count;
static bool expect_abort;
static uint64_t seed = 1;
static uint64_t round_now;          /* 0 while the corpus itself runs */
static struct input input_now;

/* With these a sanitizer report shows the input too; absent in plain builds. */
extern void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

static void input_print(void)
{
    char line[160];
    int n = snprintf(line, sizeof line, "fuzz: seed %llu, round %llu, %zu bytes:\n",
                     (unsigned long long)seed, (unsigned long long)round_now, input_now.bytes);
    (void)!write(STDERR_FILENO, line, (size_t)n);
    size_t end = input_now.bytes < DUMP_BYTES_MAX ? input_now.bytes : DUMP_BYTES_MAX;
    for (size_t i = 0; i < end; i++) {
        bool last = i + 1 == end || i % 32 == 31;
        n = snprintf(line, sizeof line, "%02x%s", input_now.ptr[i], last ? "\n" : "");
        (void)!write(STDERR_FILENO, line, (size_t)n);
    }
}

static void on_abort(int number)
{
    input_print();
    if (expect_abort) _exit(0);
    signal(number, SIG_DFL);
    raise(number);
}

static void die(const char *what, const char *path)
{
    fprintf(stderr, "fuzz: %s: %s\n", what, path);
    exit(2);
}

/* Run one input from a block of exactly its size. */
static void run(const uint8_t *ptr, size_t bytes)
{
    uint8_t *copy = malloc(bytes == 0 ? 1 : bytes);
    if (copy == NULL) die("out of memory", "input");
    if (bytes > 0) memcpy(copy, ptr, bytes);
    input_now = (struct input){copy, bytes};
    (void)LLVMFuzzerTestOneInput(copy, bytes);
    input_now = (struct input){NULL, 0};
    free(copy);
}

static void file_load(const char *path)
{
    if (files_count == FILES_MAX) die("too many corpus files", path);
    FILE *f = fopen(path, "rb");
    if (f == NULL) die("cannot open", path);
    uint8_t *block = malloc(INPUT_BYTES_MAX + 1);
    if (block == NULL) die("out of memory", path);
    size_t bytes = fread(block, 1, INPUT_BYTES_MAX + 1, f);
    if (ferror(f)) die("cannot read", path);
    if (bytes > INPUT_BYTES_MAX) die("corpus file is too big", path);
    fclose(f);
    files[files_count++] = (struct input){block, bytes};
}

static void corpus_load(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) die("no such corpus", path);
    if (!S_ISDIR(st.st_mode)) {
        file_load(path);
        return;
    }
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);  /* sorted: the same run everywhere */
    if (count < 0) die("cannot list", path);
    for (int i = 0; i < count; i++) {
        char full[4096];
        snprintf(full, sizeof full, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.') file_load(full);
        free(names[i]);
    }
    free(names);
    if (files_count == 0) die("empty corpus", path);
}

/* xorshift64*: small and the same on every machine. */
static uint32_t draw(uint32_t below)
{
    static uint64_t state;
    if (state == 0) state = seed * 0x9e3779b97f4a7c15u | 1;
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (uint32_t)((state * 0x2545f4914f6cdd1du >> 32) % below);
}

/* Replace `cut` bytes at `at` by `put` bytes of `from` (NULL: random bytes). Keeps the bound. */
static void splice(struct input *in, size_t at, size_t cut, const uint8_t *from, size_t put)
{
    if (in->bytes - cut + put > INPUT_BYTES_MAX) return;
    memmove(in->ptr + at + put, in->ptr + at + cut, in->bytes - at - cut);
    for (size_t i = 0; i < put; i++) in->ptr[at + i] = from ? from[i] : (uint8_t)draw(256);
    in->bytes = in->bytes - cut + put;
}

static void mutate(struct input *in)
{
    static const uint8_t edges[] = {0, 1, 9, 10, 13, 32, '"', '%', '+', '-', '0', '9', ':', '=',
                                    '\\', '{', '}', 0x7d, 0x7e, 0x7f, 0x80, 0xc0, 0xed, 0xf4, 0xff};
    size_t at = draw((uint32_t)in->bytes + 1);
    size_t rest = in->bytes - at;
    uint32_t kind = draw(8);

    if (rest == 0) kind = 4 + kind % 4;              /* nothing here to change: add something */
    switch (kind) {
    case 0: in->ptr[at] ^= (uint8_t)(1u << draw(8)); break;
    case 1: in->ptr[at] = edges[draw(sizeof edges)]; break;
    case 2: in->ptr[at] = (uint8_t)draw(256); break;
    case 3: splice(in, at, 1 + draw(u32_min((uint32_t)rest, 16)), NULL, 0); break;
    case 4: splice(in, at, 0, NULL, 1 + draw(8)); break;
    case 5: splice(in, at, 0, &edges[draw(sizeof edges)], 1); break;
    case 6:                                          /* cut the tail off, rarely */
        if (draw(4) == 0) in->bytes = at;
        break;
    default: {                                       /* a piece of any seed */
        const struct input *from = &files[draw(files_count)];
        if (from->bytes == 0) break;
        size_t start = draw((uint32_t)from->bytes);
        size_t put = 1 + draw((uint32_t)(from->bytes - start));
        size_t cut = draw(2) ? 0 : rest < put ? rest : put;
        splice(in, at, cut, from->ptr + start, put);
    }
    }
}

int main(int argc, char **argv)
{
    int arg = 1;
    if (arg < argc && strcmp(argv[arg], "--expect-abort") == 0) {
        expect_abort = true;
        arg++;
    }
    if (arg >= argc) die("usage", "[--expect-abort] PATH [ROUNDS [SEED]]");
    corpus_load(argv[arg]);
    uint64_t rounds = arg + 1 < argc ? strtoull(argv[arg + 1], NULL, 10) : 0;
    seed = arg + 2 < argc ? strtoull(argv[arg + 2], NULL, 10) : 1;

    signal(SIGABRT, on_abort);
    if (__sanitizer_set_death_callback != NULL) __sanitizer_set_death_callback(input_print);
    for (uint32_t i = 0; i < files_count; i++) run(files[i].ptr, files[i].bytes);

    uint8_t *block = malloc(INPUT_BYTES_MAX);
    if (block == NULL) die("out of memory", "mutation");
    for (round_now = 1; round_now <= rounds; round_now++) {
        const struct input *from = &files[draw(files_count)];
        struct input in = {block, from->bytes};
        memcpy(block, from->ptr, from->bytes);
        for (uint32_t n = 1 + draw(MUTATIONS_MAX); n > 0; n--) mutate(&in);
        run(in.ptr, in.bytes);
    }
    printf("fuzz: %u files, %llu rounds, seed %llu\n", files_count, (unsigned long long)rounds,
           (unsigned long long)seed);
    free(block);
    for (uint32_t i = 0; i < files_count; i++) free(files[i].ptr);
    return expect_abort ? 1 : 0;
}
