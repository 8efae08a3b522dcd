libgmem_a_SOURCES += \
	%D%/arena.c %D%/arena.h \
	%D%/bitmap.h \
	%D%/ckd.h \
	%D%/cores.c %D%/cores.h \
	%D%/mix.h \
	%D%/err.c %D%/err.h \
	%D%/fdio.c %D%/fdio.h \
	%D%/fdpass.c %D%/fdpass.h \
	%D%/log.c %D%/log.h \
	%D%/pool.c %D%/pool.h \
	%D%/printable.c %D%/printable.h \
	%D%/thread.c %D%/thread.h
