/* weftctl, the operator's tool. It works on what a server leaves behind and never on a running one:
 * every command takes the lock of the data directory, as a server does. */
#include <stdio.h>
#include <string.h>

#include "store/check.h"

enum { EXIT_SOUND = 0, EXIT_FINDINGS = 1, EXIT_CANNOT = 2 };

static const char help[] =
    "weftctl - looks after the data directory of a stopped Weft server\n"
    "\n"
    "usage: weftctl store check [--data-dir DIR]\n"
    "       weftctl store stat  [--data-dir DIR]\n"
    "       weftctl --help | --version\n"
    "\n"
    "commands\n"
    "  store check   Reads everything that is stored and verifies it: order and checksums of\n"
    "                every key, value and record; serials without gaps; rows, message lists,\n"
    "                folded messages, names, heads, members and receipts against the records.\n"
    "                Each finding is a line that begins with its lane. Nothing is changed.\n"
    "  store stat    Prints what each lane holds: keys, bytes and pages of each database,\n"
    "                channels and records, and whether the server was stopped cleanly.\n"
    "\n"
    "options\n"
    "  --data-dir DIR   the server's data directory; weft-data when it is not given\n"
    "  --help           this text\n"
    "  --version        the version of this program\n"
    "\n"
    "exit codes\n"
    "  0   everything is in order\n"
    "  1   something is damaged: the lines say what\n"
    "  2   nothing was verified: wrong usage, no store there, a server is running on it, a\n"
    "      newer format, or no permission\n";

static void on_line(void *ctx, const char *line)
{
    puts(line);
}

static int wrong(const char *what, const char *word)
{
    fprintf(stderr, "weftctl: %s%s%s (weftctl --help)\n", what, word == NULL ? "" : ": ",
            word == NULL ? "" : word);
    return EXIT_CANNOT;
}

static int store(const char *command, const char *dir)
{
    bool stat = strcmp(command, "stat") == 0;
    enum check_verdict v = stat ? check_stat(dir, on_line, NULL) : check_run(dir, on_line, NULL);
    switch (v) {
    case CHECK_SOUND:
        if (!stat) printf("%s is sound\n", dir);
        return EXIT_SOUND;
    case CHECK_DAMAGED:
        printf("%s is damaged\n", dir);
        return EXIT_FINDINGS;
    case CHECK_CANNOT:
        fprintf(stderr, "weftctl: %s was not verified\n", dir);
        return EXIT_CANNOT;
    }
    return EXIT_CANNOT;
}

int main(int argc, char **argv)
{
    const char *dir = "weft-data", *words[2] = {NULL, NULL};
    uint32_t count = 0;

    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            fputs(help, stdout);
            return EXIT_SOUND;
        }
        if (strcmp(arg, "--version") == 0) {
            puts("weftctl " WEFT_VERSION);
            return EXIT_SOUND;
        }
        if (strcmp(arg, "--data-dir") == 0) {
            if (++i == argc) return wrong("--data-dir needs a directory", NULL);
            dir = argv[i];
        } else if (strncmp(arg, "--data-dir=", 11) == 0) {
            dir = arg + 11;
        } else if (arg[0] == '-') {
            return wrong("unknown option", arg);
        } else if (count < 2) {
            words[count++] = arg;
        } else {
            return wrong("one word too many", arg);
        }
    }
    if (count == 0) {
        fputs(help, stderr);
        return EXIT_CANNOT;
    }
    if (strcmp(words[0], "store") != 0) return wrong("unknown command", words[0]);
    if (count < 2) return wrong("store check, or store stat", NULL);
    if (strcmp(words[1], "check") != 0 && strcmp(words[1], "stat") != 0) {
        return wrong("unknown command of store", words[1]);
    }
    return store(words[1], dir);
}
