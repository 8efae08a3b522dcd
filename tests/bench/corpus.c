/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <config.h>

/*
 * Makes a raw memory file that is like a guest's: PERCENT of its pages are not zero but
 * the heap of an interpreter full of records (read from a running perl,
 * pointers and all) and the page cache's view of programs and libraries.
 *
 *	gmem-bench-corpus FILE MIB PERCENT
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096u
#define MIB ((size_t)1 << 20)

/* Grows a table of records until its process has $ARGV[0] MiB, then says so and waits. */
static const char perl_script[] =
    "my ($want, %t, @l, $i) = ($ARGV[0] * 256); srand(7);"
    "my @w = qw(user session order payment pending shipped error index cache token);"
    "while (1) { for (1..2000) { $i++; my $id = sprintf('%08x', rand(2**32));"
    " $t{\"$w[rand @w]:$i\"} = { id => $id, name => \"$w[rand @w]-$i\", price => rand(1000),"
    " tags => [map { $w[rand @w] } 1..3], text => join(' ', map { $w[rand @w] } 1..(rand 12)) "
    "};"
    " push @l, qq({\"id\":$i,\"state\":\"$w[rand @w]\",\"n\":$id}) if $i % 3 == 0; }"
    " open my $f, '<', '/proc/self/statm'; my @s = split ' ', <$f>; last if $s[1] >= $want; }"
    "$| = 1; print \"ready\\n\"; sleep 600;";

static uint64_t seed = 88172645463325252u;

static uint64_t
next_random(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

/* Starts perl and returns when it has built its heap. */
static pid_t
start_perl(size_t mib)
{
	char size[24], line[16];
	int out[2];
	pid_t pid;

	snprintf(size, sizeof(size), "%zu", mib);
	if (pipe(out) == -1 || (pid = fork()) == -1)
		err(1, "perl");
	if (pid == 0) {
		dup2(out[1], STDOUT_FILENO);
		execlp("perl", "perl", "-e", perl_script, size, (char *)NULL);
		err(127, "perl");
	}
	close(out[1]);
	if (read(out[0], line, sizeof(line)) <= 0)
		errx(1, "perl did not get ready");
	close(out[0]);
	return pid;
}

/* Copies the writable private memory of the process; how much there was. */
static size_t
copy_process(pid_t pid, uint8_t *to, size_t len)
{
	char path[64], line[512];
	size_t have = 0;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	maps = fopen(path, "r");
	if (maps == NULL)
		err(1, "%s", path);
	while (have < len && fgets(line, sizeof(line), maps) != NULL) {
		uint64_t start, end;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " rw-p", &start, &end) != 2 ||
		    strstr(line, " rw-p ") == NULL)
			continue;
		while (start < end && have < len) {
			size_t n = end - start < MIB ? (size_t)(end - start) : MIB;
			struct iovec local = { to + have, n < len - have ? n : len - have };
			struct iovec remote = { (void *)(uintptr_t)start, local.iov_len };
			ssize_t got = process_vm_readv(pid, &local, 1, &remote, 1, 0);

			if (got <= 0)
				break;
			have += (size_t)got;
			start += (uint64_t)got;
		}
	}
	fclose(maps);
	return have / PAGE * PAGE;
}

/* Copies whole pages of the files of a folder. */
static size_t
copy_files(const char *folder, uint8_t *to, size_t len)
{
	DIR *dir = opendir(folder);
	struct dirent *d;
	size_t have = 0;

	while (dir != NULL && have + PAGE <= len && (d = readdir(dir)) != NULL) {
		int fd = openat(dirfd(dir), d->d_name, O_RDONLY | O_NOFOLLOW);
		struct stat st;
		ssize_t n = 0;

		if (fd != -1 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
			n = read(fd, to + have, len - have);
		if (fd != -1)
			close(fd);
		if (n > 0)
			have += (size_t)n / PAGE * PAGE;
	}
	if (dir != NULL)
		closedir(dir);
	return have;
}

/* Lays content out in stretches of up to 2 MiB, with zero pages in and between them. */
static void
lay_out(int fd, size_t total, const uint8_t *content, size_t len, unsigned percent)
{
	size_t off = 0, used = 0;
	/* Stretches are 256 pages on average, a sixteenth of that zeros. */
	size_t gap = 2 * (240 * 100 / percent - 256);

	while (off < total && used < len) {
		size_t n = (size_t)(next_random() % 512 + 1) * PAGE;

		for (size_t i = 0; i < n && used < len && off < total; i += PAGE, off += PAGE) {
			if (next_random() % 16 == 0)
				continue;
			if (pwrite(fd, content + used, PAGE, (off_t)off) != PAGE)
				err(1, "write");
			used += PAGE;
		}
		off += (size_t)(next_random() % gap + 1) * PAGE;
	}
}

int
main(int argc, char **argv)
{
	size_t total, want, heap, have;
	unsigned percent;
	uint8_t *content;
	pid_t pid;
	int fd;

	if (argc != 4 || (total = strtoul(argv[2], NULL, 10) * MIB) == 0 ||
	    (percent = (unsigned)strtoul(argv[3], NULL, 10)) == 0 || percent > 80)
		errx(2, "usage: gmem-bench-corpus FILE MIB PERCENT");
	want = total / 100 * percent;
	heap = want * 3 / 5;
	content = malloc(want);
	fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (content == NULL || fd == -1 || ftruncate(fd, (off_t)total) == -1)
		err(1, "%s", argv[1]);
	pid = start_perl(heap / MIB + 4);
	have = copy_process(pid, content, heap);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	have += copy_files("/usr/bin", content + have, (want - have) / 2);
	have += copy_files("/usr/lib/x86_64-linux-gnu", content + have, want - have);
	lay_out(fd, total, content, have, percent);
	printf("%zu MiB, %zu MiB of content\n", total / MIB, have / MIB);
	return 0;
}
