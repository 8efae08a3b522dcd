/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

#include "cli/opt.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cbor.h>
#include <jansson.h>

#include "base/err.h"
#include "base/log.h"
#include "codec/codec.h"

int
opt_finish(int status)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return status;
	log_error("write to standard output: %s", strerror(errno));
	return status == STATUS_OK ? STATUS_FAILED : status;
}

void
opt_help(const struct opt_program *p)
{
	printf("Usage: %s\n%s", p->usage, p->help);
	if (p->more != NULL)
		p->more();
	printf("%s\nFor more see %s(1).\n", p->rest != NULL ? p->rest : "", p->name);
	exit(opt_finish(STATUS_OK));
}

void
opt_version(const struct opt_program *p)
{
	printf("%s %s\nlibzstd %s, libcbor %d.%d.%d, jansson %s\n", p->name, PACKAGE_VERSION,
	    codec_version(), CBOR_MAJOR_VERSION, CBOR_MINOR_VERSION, CBOR_PATCH_VERSION,
	    jansson_version_str());
	exit(opt_finish(STATUS_OK));
}

void
opt_bad(const struct opt_program *p, const char *fmt, ...)
{
	char msg[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	log_error("%s", msg);
	fprintf(stderr, "Try '%s --help'.\n", p->name);
	exit(STATUS_USAGE);
}

void
opt_unknown(const struct opt_program *p, int answer, char **argv)
{
	const char *last = argv[optind - 1];

	if (answer == ':')
		opt_bad(p, "%s wants an argument", last);
	if (optopt > CHAR_MAX)
		opt_bad(p, "%s: takes no argument", last);
	if (optopt != 0)
		opt_bad(p, "there is no option -%c", optopt);
	opt_bad(p, "there is no option %s, or it is not spelt out", last);
}

long long
opt_number(const struct opt_program *p, const char *option, const char *arg, long long min,
    long long max)
{
	const char *why;
	long long n;

	n = strtonum(arg, min, max, &why);
	if (why != NULL)
		opt_bad(p, "%s %s: is %s, a number from %lld to %lld is wanted", option, arg,
		    why, min, max);
	return n;
}

uint64_t
opt_size(const struct opt_program *p, const char *option, const char *arg, uint64_t min,
    uint64_t max)
{
	static const char units[] = "KMGT";
	unsigned long long n = 0;
	const char *unit;
	char *end = NULL;
	unsigned shift = 0;

	errno = 0;
	if (*arg >= '0' && *arg <= '9')
		n = strtoull(arg, &end, 10);
	if (end != NULL && *end != '\0' && (unit = strchr(units, *end & ~0x20)) != NULL) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
		if (strcmp(end, "iB") == 0)
			end += 2;
	}
	if (end == NULL || *end != '\0' || errno != 0 || n > UINT64_MAX >> shift)
		opt_bad(p, "%s %s: a size is wanted, such as 65536, 64K or 2M", option, arg);
	n <<= shift;
	if (n < min || n > max)
		opt_bad(p, "%s %s: from %llu to %llu bytes are wanted", option, arg,
		    (unsigned long long)min, (unsigned long long)max);
	return n;
}

char *
opt_pair(const struct opt_program *p, const char *option, char *arg)
{
	char *equals = strchr(arg, '=');

	if (equals == NULL || equals == arg)
		opt_bad(p, "%s %s: NAME=VALUE is wanted", option, arg);
	*equals = '\0';
	return equals + 1;
}

const uint8_t *
opt_digest(const struct opt_program *p, const char *option, const char *arg,
    uint8_t digest[DIGEST_SIZE])
{
	if (digest_parse(digest, arg) == -1)
		opt_bad(p, "%s %s: 64 hexadecimal digits are wanted, as of gmem-inspect root",
		    option, arg);
	return digest;
}

const char *
opt_human(char buf[16], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1024 && unit < 4) {
		value /= 1024;
		unit++;
	}
	snprintf(
	    buf, 16, unit == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[unit]);
	return buf;
}
