# SPDX-License-Identifier: GPL-2.0-or-later
exampledir = $(docdir)/examples
dist_example_SCRIPTS = %D%/qemu-snapshot.sh %D%/qemu-restore.sh
