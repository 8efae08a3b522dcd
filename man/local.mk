# SPDX-License-Identifier: GPL-2.0-or-later
dist_man1_MANS = %D%/gmem-inspect.1
dist_man1_MANS += %D%/gmem-snap.1
dist_man1_MANS += %D%/gmem-restore.1
dist_man5_MANS = %D%/gmem-image.5
dist_man5_MANS += %D%/gmem-stats.5
dist_man5_MANS += %D%/gmem-trace.5
dist_man7_MANS = %D%/gmem-handoff.7
