/* Goal    Every error has a name of its own that can stand in a log line.
 * Method  All pairs of codes are compared; codes outside the list must not crash.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include "core/err.h"

static void err_names_differ(void **state)
{
    for (err_t a = OK; a >= ERR_UNSUPPORTED; a--) {
        assert_true(strlen(err_name(a)) > 0);
        for (err_t b = OK; b >= ERR_UNSUPPORTED; b--) {
            assert_int_equal(strcmp(err_name(a), err_name(b)) == 0, a == b);
        }
    }
}

static void err_name_answers_for_unlisted_codes(void **state)
{
    assert_string_equal(err_name(ERR_UNSUPPORTED - 1), err_name(12345));
    assert_string_not_equal(err_name(12345), err_name(OK));
}

int main(void)
{
    const struct CMUnitTest cases[] = {
        cmocka_unit_test(err_names_differ),
        cmocka_unit_test(err_name_answers_for_unlisted_codes),
    };
    return cmocka_run_group_tests(cases, NULL, NULL);
}
