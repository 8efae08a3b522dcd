# SPDX-License-Identifier: GPL-2.0-or-later
# The benchmark suite, built and run by `make bench` only.
EXTRA_PROGRAMS += gmem-bench gmem-bench-corpus
gmem_bench_SOURCES = %D%/bench.c
gmem_bench_corpus_SOURCES = %D%/corpus.c
gmem_bench_corpus_LDADD =
EXTRA_DIST += %D%/chunk-sizes.sh %D%/run.sh
CLEANFILES += gmem-bench gmem-bench-corpus

bench: all gmem-bench gmem-bench-corpus
	./run bash $(srcdir)/%D%/run.sh
bench-chunk-sizes: all gmem-bench gmem-bench-corpus
	./run bash $(srcdir)/%D%/chunk-sizes.sh
.PHONY: bench bench-chunk-sizes
