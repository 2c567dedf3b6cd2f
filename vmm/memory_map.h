#ifndef CUBE_VMM_MEMORY_MAP_H_
#define CUBE_VMM_MEMORY_MAP_H_

#include <cstdint>

#include "base/control_abi.h"

// The guest physical map (docs/design.md): RAM from 0, a hole below 4 GiB for devices, more RAM
// above. Every fixed address of the VMM stands here, so that overlaps do not compile.
namespace cube::vmm {

inline constexpr uint64_t kMiB = 1 << 20;
inline constexpr uint64_t kGiB = 1 << 30;
inline constexpr uint64_t kPageSize = 4096;

inline constexpr uint64_t kHoleStart = 0xd0000000;
inline constexpr uint64_t kHoleEnd = 4 * kGiB;

// Virtio-mmio devices, kVirtioMmioSize each; GSIs from kVirtioFirstGsi in the same order.
inline constexpr uint64_t kVirtioMmioStart = 0xd0100000;
inline constexpr uint64_t kVirtioMmioSize = 0x1000;
inline constexpr uint32_t kVirtioFirstGsi = 5;
inline constexpr uint32_t kVirtioMaxDevices = 11;

// What the ring-0 engine has KVM run for it, per vCPU (vmm/ring0/kvm_stub.h); the guest is not told.
inline constexpr uint64_t kRing0StubAddress = 0xd0200000;
inline constexpr uint64_t kRing0StubSize = 0x8000;

// A slot that comes and goes, so that KVM forgets its shadow of the guest's page tables.
inline constexpr uint64_t kScratchAddress = kRing0StubAddress + 8 * kRing0StubSize;

inline constexpr uint64_t kIoApicAddress = 0xfec00000;
inline constexpr uint64_t kLocalApicAddress = 0xfee00000;
// Three pages of KVM's own for real mode on Intel (KVM API 4.35 KVM_SET_TSS_ADDR), and one for
// its identity map (4.41).
inline constexpr uint64_t kKvmTssAddress = 0xfffbd000;
inline constexpr uint64_t kKvmIdentityMapAddress = 0xfffbc000;

// What the loader leaves below 1 MiB for the kernel to find.
inline constexpr uint64_t kGdtAddress = 0x500;
inline constexpr uint64_t kBootParamsAddress = 0x7000;
inline constexpr uint64_t kBootStackTop = 0x9000;
inline constexpr uint64_t kBootPageTables = 0x9000;
inline constexpr uint64_t kBootPageTablesSize = 0x6000;  // PML4, PDPT, four page directories
inline constexpr uint64_t kCommandLineAddress = 0x20000;
inline constexpr uint64_t kCommandLineMaxSize = 2048;  // COMMAND_LINE_SIZE of x86, with the zero
// The last KiB of low memory, where Linux looks for an MP table without a BIOS. It is not RAM to the
// guest; setup data lie there as well, because in RAM they would be an area of their own.
inline constexpr uint64_t kMpTableAddress = 0x9fc00;
inline constexpr uint64_t kMpTableMaxSize = 0x300;
inline constexpr uint64_t kSetupDataAddress = 0x9ff00;
inline constexpr uint64_t kSetupDataMaxSize = 0x100;
// The guest's RAM starts here: Linux would take the first page out of it anyway.
inline constexpr uint64_t kLowMemoryStart = 0x1000;
inline constexpr uint64_t kHighMemoryStart = 0x100000;

inline constexpr uint32_t kMaxCpus = 8;
inline constexpr uint64_t kMinMemory = 32 * kMiB;
inline constexpr uint64_t kMaxMemory = 512 * kGiB;

static_assert(kBootParamsAddress + 0x1000 <= kBootStackTop);
static_assert(kBootPageTables + kBootPageTablesSize <= kCommandLineAddress);
static_assert(kCommandLineAddress + kCommandLineMaxSize <= kMpTableAddress);
static_assert(kMpTableAddress + kMpTableMaxSize <= kSetupDataAddress);
static_assert(kSetupDataAddress + kSetupDataMaxSize <= 0xa0000);
static_assert(kGdtAddress < kLowMemoryStart);
static_assert(abi::kDoorbellAddress == kHoleStart);
static_assert(abi::kDoorbellAddress + abi::kDoorbellSize == abi::kMailboxAddress);
static_assert(abi::kMailboxAddress + abi::kMailboxSize <= kVirtioMmioStart);
static_assert(kVirtioMmioStart + kVirtioMaxDevices * kVirtioMmioSize <= kRing0StubAddress);
static_assert(kRing0StubAddress + kRing0StubSize * kMaxCpus <= kScratchAddress);
static_assert(kScratchAddress + kPageSize <= kIoApicAddress);
static_assert(kVirtioFirstGsi + kVirtioMaxDevices <= 16);
static_assert(kIoApicAddress < kLocalApicAddress);
static_assert(kKvmIdentityMapAddress + kPageSize == kKvmTssAddress);
static_assert(kKvmTssAddress + 3 * kPageSize <= kHoleEnd);

}  // namespace cube::vmm

#endif  // CUBE_VMM_MEMORY_MAP_H_
