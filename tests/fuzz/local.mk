# SPDX-License-Identifier: GPL-2.0-or-later
# Fuzz targets: without --enable-fuzzers they replay their seeds.
fuzz_targets = fuzz-cbor-manifest fuzz-ch-fault fuzz-ch-receive fuzz-cloud-hypervisor \
	fuzz-control fuzz-entry-node fuzz-firecracker fuzz-handoff fuzz-handoff-client fuzz-header \
	fuzz-hot-table fuzz-http fuzz-image fuzz-options fuzz-pager fuzz-pager-keep \
	fuzz-proc fuzz-qemu-mapped fuzz-qemu-stream fuzz-qemu-text fuzz-qmp fuzz-stats fuzz-trace \
	fuzz-trace-merge fuzz-trailer
check_PROGRAMS += $(fuzz_targets) make-seeds

check_LIBRARIES += libgmemfuzz.a
libgmemfuzz_a_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
libgmemfuzz_a_SOURCES = %D%/fuzz.c %D%/fuzz.h
if !FUZZERS
libgmemfuzz_a_SOURCES += %D%/replay.c
TESTS += $(fuzz_targets)
endif

# What gmem-inspect does with files that are no images.
inspect_stats = src/gmem-inspect/start.c src/gmem-inspect/start-svg.c src/gmem-inspect/start-text.c \
	src/gmem-inspect/text.c
inspect_trace = src/gmem-inspect/trace-count.c src/gmem-inspect/trace-json.c \
	src/gmem-inspect/trace-merge.c src/gmem-inspect/trace-text.c src/gmem-inspect/text.c
reseal = %D%/reseal.c %D%/reseal.h
FUZZ_ADD = libgmemfuzz.a $(LDADD)
FUZZ_LINK = $(AM_LDFLAGS) $(FUZZ_LDFLAGS)

fuzz_cbor_manifest_SOURCES = %D%/fuzz-cbor-manifest.c
fuzz_cbor_manifest_LDADD = $(FUZZ_ADD)
fuzz_cbor_manifest_LDFLAGS = $(FUZZ_LINK)

# A page server that gives, or can't.
fuzz_ch_fault_SOURCES = %D%/fuzz-ch-fault.c
fuzz_ch_fault_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
fuzz_ch_fault_LDADD = libgmemtest.a $(FUZZ_ADD)
fuzz_ch_fault_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=pager_provide -Wl,--wrap=pager_record_ask \
	-Wl,--wrap=pager_fail

fuzz_ch_receive_SOURCES = %D%/fuzz-ch-receive.c
fuzz_ch_receive_LDADD = $(FUZZ_ADD)
fuzz_ch_receive_LDFLAGS = $(FUZZ_LINK)

fuzz_cloud_hypervisor_SOURCES = %D%/fuzz-cloud-hypervisor.c
fuzz_cloud_hypervisor_LDADD = $(FUZZ_ADD)
fuzz_cloud_hypervisor_LDFLAGS = $(FUZZ_LINK)

fuzz_control_SOURCES = %D%/fuzz-control.c
fuzz_control_LDADD = $(FUZZ_ADD)
fuzz_control_LDFLAGS = $(FUZZ_LINK)

fuzz_handoff_SOURCES = %D%/fuzz-handoff.c
fuzz_handoff_LDADD = $(FUZZ_ADD)
fuzz_handoff_LDFLAGS = $(FUZZ_LINK)

fuzz_handoff_client_SOURCES = %D%/fuzz-handoff-client.c
fuzz_handoff_client_LDADD = $(FUZZ_ADD)
fuzz_handoff_client_LDFLAGS = $(FUZZ_LINK)

fuzz_entry_node_SOURCES = %D%/fuzz-entry-node.c
fuzz_entry_node_LDADD = $(FUZZ_ADD)
fuzz_entry_node_LDFLAGS = $(FUZZ_LINK)

fuzz_firecracker_SOURCES = %D%/fuzz-firecracker.c
fuzz_firecracker_LDADD = $(FUZZ_ADD)
fuzz_firecracker_LDFLAGS = $(FUZZ_LINK)

fuzz_header_SOURCES = %D%/fuzz-header.c
fuzz_header_LDADD = $(FUZZ_ADD)
fuzz_header_LDFLAGS = $(FUZZ_LINK)

fuzz_hot_table_SOURCES = %D%/fuzz-hot-table.c
fuzz_hot_table_LDADD = $(FUZZ_ADD)
fuzz_hot_table_LDFLAGS = $(FUZZ_LINK)

fuzz_http_SOURCES = %D%/fuzz-http.c
fuzz_http_LDADD = $(FUZZ_ADD)
fuzz_http_LDFLAGS = $(FUZZ_LINK)

fuzz_image_SOURCES = %D%/fuzz-image.c $(reseal)
fuzz_image_LDADD = $(FUZZ_ADD)
fuzz_image_LDFLAGS = $(FUZZ_LINK)

fuzz_pager_SOURCES = %D%/fuzz-pager.c src/gmem-page-server/requests.c
fuzz_pager_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
fuzz_pager_LDADD = libgmemtest.a $(FUZZ_ADD)
fuzz_pager_LDFLAGS = $(FUZZ_LINK)

fuzz_pager_keep_SOURCES = %D%/fuzz-pager-keep.c
fuzz_pager_keep_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib
fuzz_pager_keep_LDADD = libgmemtest.a $(FUZZ_ADD)
fuzz_pager_keep_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=poll -Wl,--wrap=child_start \
	-Wl,--wrap=child_kill -Wl,--wrap=child_bury

fuzz_proc_SOURCES = %D%/fuzz-proc.c
fuzz_proc_LDADD = $(FUZZ_ADD)
fuzz_proc_LDFLAGS = $(FUZZ_LINK)

fuzz_qemu_mapped_SOURCES = %D%/fuzz-qemu-mapped.c
fuzz_qemu_mapped_LDADD = $(FUZZ_ADD)
fuzz_qemu_mapped_LDFLAGS = $(FUZZ_LINK)

fuzz_qemu_stream_SOURCES = %D%/fuzz-qemu-stream.c
fuzz_qemu_stream_LDADD = $(FUZZ_ADD)
fuzz_qemu_stream_LDFLAGS = $(FUZZ_LINK)

fuzz_trace_SOURCES = %D%/fuzz-trace.c
fuzz_trace_LDADD = $(FUZZ_ADD)
fuzz_trace_LDFLAGS = $(FUZZ_LINK)

fuzz_trailer_SOURCES = %D%/fuzz-trailer.c
fuzz_trailer_LDADD = $(FUZZ_ADD)
fuzz_trailer_LDFLAGS = $(FUZZ_LINK)

fuzz_options_SOURCES = %D%/fuzz-options.c
fuzz_options_LDADD = $(FUZZ_ADD)
fuzz_options_LDFLAGS = $(FUZZ_LINK) -Wl,--wrap=exit

fuzz_qemu_text_SOURCES = %D%/fuzz-qemu-text.c
fuzz_qemu_text_LDADD = $(FUZZ_ADD)
fuzz_qemu_text_LDFLAGS = $(FUZZ_LINK)

fuzz_qmp_SOURCES = %D%/fuzz-qmp.c
fuzz_qmp_LDADD = $(FUZZ_ADD)
fuzz_qmp_LDFLAGS = $(FUZZ_LINK)

fuzz_stats_SOURCES = %D%/fuzz-stats.c $(inspect_stats)
fuzz_stats_LDADD = $(FUZZ_ADD)
fuzz_stats_LDFLAGS = $(FUZZ_LINK)

fuzz_trace_merge_SOURCES = %D%/fuzz-trace-merge.c $(inspect_trace)
fuzz_trace_merge_LDADD = $(FUZZ_ADD)
fuzz_trace_merge_LDFLAGS = $(FUZZ_LINK)

make_seeds_SOURCES = %D%/make-seeds.c $(reseal)
make_seeds_CPPFLAGS = $(AM_CPPFLAGS) -I$(srcdir)/tests/lib

EXTRA_DIST += tests/data/seeds %D%/replay.c %D%/run-fuzz

# FUZZ_SECONDS a target; new inputs go to fuzz-corpus/ in the build folder.
FUZZ_SECONDS = 10
fuzz: $(fuzz_targets)
	$(AM_V_at)FUZZ_SECONDS='$(FUZZ_SECONDS)' $(SHELL) $(srcdir)/tests/fuzz/run-fuzz \
	    $(srcdir)/tests/data/seeds $(fuzz_targets)
.PHONY: fuzz
