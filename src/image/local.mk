libgmem_a_SOURCES += \
	%D%/cold.c %D%/cold.h \
	%D%/content.c %D%/content.h \
	%D%/cover.h \
	%D%/hot.c %D%/hot.h \
	%D%/hot-write.c %D%/hot-write.h \
	%D%/image.c %D%/image.h \
	%D%/out.c %D%/out.h \
	%D%/pack.c %D%/pack.h \
	%D%/place.c \
	%D%/reader.c %D%/reader.h \
	%D%/trace-file.c %D%/trace-file.h \
	%D%/verify.c %D%/verify.h \
	%D%/watch.c %D%/watch.h \
	%D%/writer.c %D%/writer.h
