# SPDX-License-Identifier: GPL-2.0-or-later
dist_man1_MANS = %D%/gmem-inspect.1
dist_man1_MANS += %D%/gmem-snap.1
