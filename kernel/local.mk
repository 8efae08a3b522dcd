# SPDX-License-Identifier: GPL-2.0-or-later
lab_patches = \
	%D%/patches/0001-KVM-guest_memfd-populate-with-write-2.patch \
	%D%/patches/0002-KVM-guest_memfd-support-userfaultfd-missing-and-mino.patch \
	%D%/patches/0003-KVM-x86-a-userfault-bitmap-for-memory-slots.patch \
	%D%/patches/0004-KVM-guest_memfd-pages-out-of-the-direct-map.patch \
	%D%/patches/0005-KVM-guest_memfd-lab-only-play-the-other-series.patch \
	%D%/patches/7.2/0000-KVM-guest_memfd-tell-shared-from-private-by-the-inde.patch \
	%D%/patches/7.2/0001-KVM-guest_memfd-populate-with-write-2.patch \
	%D%/patches/7.2/0004-KVM-guest_memfd-pages-out-of-the-direct-map.patch

EXTRA_DIST += %D%/README %D%/build %D%/config $(lab_patches)

# The kernel of the test lab, kept in the user's cache.
lab:
	$(AM_V_GEN)$(SHELL) $(srcdir)/%D%/build
.PHONY: lab
