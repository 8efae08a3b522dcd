# What may print and exit.
noinst_LIBRARIES += libgmemcli.a
libgmemcli_a_SOURCES = \
	%D%/confine.c %D%/confine.h \
	%D%/json.c %D%/json.h \
	%D%/opt.c %D%/opt.h \
	%D%/progress.c %D%/progress.h
