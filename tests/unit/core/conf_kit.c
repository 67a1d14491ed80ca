#include "conf_kit.h"

#include <unistd.h>

struct conf      kit_conf;
char             kit_error[512];
enum conf_action kit_action;

static char folder[] = "weft-conf-XXXXXX";

void kit_open(void)
{
    if (mkdtemp(folder) == NULL || chdir(folder) != 0) abort();
}

int kit_close(int failed)
{
    unlink("weft.yaml");
    if (chdir("..") != 0 || rmdir(folder) != 0) return 1;
    return failed;
}

void kit_file_write(const char *text)
{
    FILE *f = fopen("weft.yaml", "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

err_t kit_load(char **arguments, char **environment)
{
    char *argv[16] = {"weft"};
    int argc = 1;

    for (; arguments[argc - 1] != NULL; argc++) argv[argc] = arguments[argc - 1];
    return conf_load(&kit_conf, argc, argv, environment, &kit_action, kit_error,
                     sizeof(kit_error));
}

void kit_loads(char **arguments, char **environment)
{
    err_t e = kit_load(arguments, environment);

    if (e != OK) print_error("%s\n", kit_error);
    assert_int_equal(e, OK);
    assert_string_equal(kit_error, "");
}

void kit_refused(char **arguments, char **environment, const char *line)
{
    assert_int_equal(kit_load(arguments, environment), ERR_CONFIG);
    assert_string_equal(kit_error, line);
}

void kit_file_loads(const char *text)
{
    kit_file_write(text);
    kit_loads(LIST("--config", "weft.yaml"), LIST());
}

void kit_wrong(const char *text, const char *line)
{
    kit_file_write(text);
    kit_refused(LIST("--config", "weft.yaml"), LIST(), line);
}
