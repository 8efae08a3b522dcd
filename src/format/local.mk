libgmem_a_SOURCES += \
	%D%/cbor.c %D%/cbor.h \
	%D%/fields.c %D%/fields.h \
	%D%/header.c %D%/header.h \
	%D%/layout.c %D%/layout.h \
	%D%/manifest.c %D%/manifest-check.c %D%/manifest.h \
	%D%/node.c %D%/node.h \
	%D%/pieces.c %D%/pieces.h \
	%D%/trace.c %D%/trace-bytes.h %D%/trace-decode.c %D%/trace-resolve.c %D%/trace.h \
	%D%/trailer.c %D%/trailer.h
