libgmem_a_SOURCES += \
	%D%/codec.c %D%/codec.h \
	%D%/hash.c %D%/hash.h
