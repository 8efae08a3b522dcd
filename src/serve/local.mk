# SPDX-License-Identifier: GPL-2.0-or-later
libgmem_a_SOURCES += \
	%D%/aside.c %D%/aside.h \
	%D%/asked.c \
	%D%/backfill.c %D%/backfill.h \
	%D%/background.c \
	%D%/batch.c %D%/batch.h \
	%D%/claims.c %D%/claims.h \
	%D%/copy.c \
	%D%/damage.c %D%/damage.h \
	%D%/discard.c \
	%D%/eager.c \
	%D%/engine.c %D%/engine.h \
	%D%/events.c \
	%D%/extents.c %D%/extents.h \
	%D%/faults.c \
	%D%/fill.c %D%/fill-first.c %D%/filler.c \
	%D%/host.c %D%/host.h \
	%D%/hot.c %D%/hot.h \
	%D%/internal.h \
	%D%/ledger.c %D%/ledger.h %D%/ledger-wire.c %D%/ledger-wire.h \
	%D%/loaded.c \
	%D%/map.c \
	%D%/mappings.c \
	%D%/memory.c \
	%D%/near.c %D%/near.h \
	%D%/object.c %D%/object.h \
	%D%/object-put.c \
	%D%/own.c \
	%D%/page-pool.c %D%/page-pool.h \
	%D%/pace.c %D%/pace.h \
	%D%/pager.c %D%/pager.h %D%/pager-ask.c %D%/pager-child.c %D%/pager-internal.h \
	%D%/pager-hear.c %D%/pager-journal.c %D%/pager-keep.c %D%/pager-ledger.c %D%/pager-memory.c %D%/pager-replay.c %D%/pager-wire.c %D%/pager-wire.h \
	%D%/place.c %D%/place.h \
	%D%/plan.c \
	%D%/prefetch.c %D%/prefetch.h %D%/prefetcher.h \
	%D%/premap.c \
	%D%/processes.c \
	%D%/protect.c %D%/protect.h %D%/protect-internal.h %D%/protect-writes.c \
	%D%/readers.c \
	%D%/record.c %D%/record.h \
	%D%/resume.c \
	%D%/scatter.c %D%/scatter.h \
	%D%/server.c %D%/server.h \
	%D%/source.c \
	%D%/stats.c %D%/stats.h \
	%D%/threads.c \
	%D%/uffd.c %D%/uffd.h \
	%D%/uffd-protect.c %D%/uffd-protect.h \
	%D%/uffd-take.c %D%/uffd-take.h
