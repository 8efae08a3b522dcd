# What may print and exit.
noinst_LIBRARIES += libgmemcli.a
libgmemcli_a_SOURCES = \
	%D%/confine.c %D%/confine.h \
	%D%/filter.c %D%/filter.h %D%/filter-inspect.def %D%/filter-publish.def \
	%D%/filter-page-server.def \
	%D%/json.c %D%/json.h \
	%D%/opt.c %D%/opt.h \
	%D%/progress.c %D%/progress.h \
	%D%/time-limit.c %D%/time-limit.h
