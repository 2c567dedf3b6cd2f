#ifndef CUBE_VMM_KVM_KVM_API_H_
#define CUBE_VMM_KVM_KVM_API_H_

// <linux/kvm.h> as the kernel means it. Debian 12's headers declare flexible arrays through a macro
// that, in C++, adds an empty struct of size 1; the sizes of kvm_cpuid2, kvm_msrs and others are
// then wrong, and with them the ioctl numbers that encode those sizes.
#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[0]
#include <linux/kvm.h>

static_assert(sizeof(struct kvm_cpuid2) == 8);
static_assert(sizeof(struct kvm_msrs) == 8);

#endif  // CUBE_VMM_KVM_KVM_API_H_
