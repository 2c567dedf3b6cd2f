#ifndef CUBE_VMM_SEGMENTS_H_
#define CUBE_VMM_SEGMENTS_H_

#include "vmm/kvm/kvm_api.h"

// Segment registers for 64-bit mode as KVM holds them (KVM API 4.13; Intel SDM volume 3, 3.4.5),
// and the numbers of the processor that go with them.
namespace cube::vmm {

// Types of segments.
inline constexpr uint8_t kSegmentCode = 11;     // execute, read, accessed
inline constexpr uint8_t kSegmentData = 3;      // read, write, accessed
inline constexpr uint8_t kSegmentBusyTss = 11;  // of 64 bits, in use

inline kvm_segment LongModeCode(uint16_t selector, uint8_t privilege) {
  kvm_segment segment = {};
  segment.selector = static_cast<uint16_t>(selector | privilege);
  segment.limit = 0xffffffff;
  segment.type = kSegmentCode;
  segment.present = 1;
  segment.s = 1;
  segment.l = 1;
  segment.g = 1;
  segment.dpl = privilege;
  return segment;
}

inline kvm_segment LongModeData(uint16_t selector, uint8_t privilege) {
  kvm_segment segment = {};
  segment.selector = static_cast<uint16_t>(selector | privilege);
  segment.limit = 0xffffffff;
  segment.type = kSegmentData;
  segment.present = 1;
  segment.s = 1;
  segment.db = 1;
  segment.g = 1;
  segment.dpl = privilege;
  return segment;
}

inline kvm_segment LongModeTss(uint16_t selector, uint64_t base) {
  kvm_segment segment = {};
  segment.selector = selector;
  segment.base = base;
  segment.limit = 0x67;
  segment.type = kSegmentBusyTss;
  segment.present = 1;
  return segment;
}

// A segment descriptor with base 0 and limit 4 GiB, as a table holds it (SDM volume 3, 3.4.5).
constexpr uint64_t FlatDescriptor(uint8_t type, uint8_t privilege, uint8_t flags) {
  constexpr uint64_t kLimit = 0x000f00000000ffff;
  constexpr uint64_t kCodeOrData = uint64_t{1} << 44;
  constexpr uint64_t kPresent = uint64_t{1} << 47;
  return kLimit | uint64_t{type} << 40 | kCodeOrData | uint64_t{privilege} << 45 | kPresent |
         uint64_t{flags} << 52;
}
// Already marked accessed, so that loading them writes nothing; of 4 KiB granularity.
constexpr uint64_t LongModeCodeDescriptor(uint8_t privilege) {
  return FlatDescriptor(kSegmentCode, privilege, 0xa);
}
constexpr uint64_t DataDescriptor(uint8_t privilege) {
  return FlatDescriptor(kSegmentData, privilege, 0xc);
}
static_assert(LongModeCodeDescriptor(0) == 0x00af9b000000ffff);
static_assert(DataDescriptor(0) == 0x00cf93000000ffff);

// Control register and EFER bits (SDM volume 3, 2.5 and 2.2.1).
inline constexpr uint64_t kCr0ProtectionEnable = 1 << 0;
inline constexpr uint64_t kCr0MonitorCoprocessor = 1 << 1;
inline constexpr uint64_t kCr0Emulation = 1 << 2;
inline constexpr uint64_t kCr0TaskSwitched = 1 << 3;
inline constexpr uint64_t kCr0ExtensionType = 1 << 4;
inline constexpr uint64_t kCr0NumericError = 1 << 5;
inline constexpr uint64_t kCr0WriteProtect = 1 << 16;
inline constexpr uint64_t kCr0AlignmentMask = 1 << 18;
inline constexpr uint64_t kCr0Paging = 1u << 31;
inline constexpr uint64_t kCr4PhysicalAddressExtension = 1 << 5;
inline constexpr uint64_t kCr4GlobalPages = 1 << 7;
inline constexpr uint64_t kCr4OsFxsr = 1 << 9;
inline constexpr uint64_t kCr4OsXmmExceptions = 1 << 10;
inline constexpr uint64_t kCr4La57 = 1 << 12;
inline constexpr uint64_t kCr4FsGsBase = 1 << 16;
inline constexpr uint64_t kCr4Pcid = 1 << 17;
inline constexpr uint64_t kCr4OsXsave = 1 << 18;
inline constexpr uint64_t kCr4Smep = 1 << 20;
inline constexpr uint64_t kCr4Smap = 1 << 21;
inline constexpr uint64_t kEferSyscallEnable = 1 << 0;
inline constexpr uint64_t kEferLongModeEnable = 1 << 8;
inline constexpr uint64_t kEferLongModeActive = 1 << 10;
inline constexpr uint64_t kEferNoExecute = 1 << 11;

// RFLAGS bits.
inline constexpr uint64_t kFlagCarry = 1 << 0;
inline constexpr uint64_t kFlagReserved = 1 << 1;
inline constexpr uint64_t kFlagParity = 1 << 2;
inline constexpr uint64_t kFlagAdjust = 1 << 4;
inline constexpr uint64_t kFlagZero = 1 << 6;
inline constexpr uint64_t kFlagSign = 1 << 7;
inline constexpr uint64_t kFlagTrap = 1 << 8;
inline constexpr uint64_t kFlagInterrupt = 1 << 9;
inline constexpr uint64_t kFlagDirection = 1 << 10;
inline constexpr uint64_t kFlagOverflow = 1 << 11;
inline constexpr uint64_t kFlagNestedTask = 1 << 14;
inline constexpr uint64_t kFlagResume = 1 << 16;
inline constexpr uint64_t kFlagVirtual8086 = 1 << 17;
inline constexpr uint64_t kFlagAlignmentCheck = 1 << 18;
inline constexpr uint64_t kFlagsArithmetic = kFlagCarry | kFlagParity | kFlagAdjust | kFlagZero |
                                             kFlagSign | kFlagOverflow;

// Exception vectors (SDM volume 3, table 6-1).
inline constexpr uint8_t kVectorDivideError = 0;
inline constexpr uint8_t kVectorDebug = 1;
inline constexpr uint8_t kVectorNmi = 2;
inline constexpr uint8_t kVectorBreakpoint = 3;
inline constexpr uint8_t kVectorOverflow = 4;
inline constexpr uint8_t kVectorInvalidOpcode = 6;
inline constexpr uint8_t kVectorDeviceNotAvailable = 7;
inline constexpr uint8_t kVectorDoubleFault = 8;
inline constexpr uint8_t kVectorInvalidTss = 10;
inline constexpr uint8_t kVectorSegmentNotPresent = 11;
inline constexpr uint8_t kVectorStackFault = 12;
inline constexpr uint8_t kVectorGeneralProtection = 13;
inline constexpr uint8_t kVectorPageFault = 14;
inline constexpr uint8_t kVectorAlignmentCheck = 17;
inline constexpr uint8_t kVectorMachineCheck = 18;
inline constexpr uint8_t kVectorSimdException = 19;
inline constexpr uint8_t kFirstInterrupt = 32;

// MSRs this VMM names.
inline constexpr uint32_t kMsrTsc = 0x10;
inline constexpr uint32_t kMsrMiscEnable = 0x1a0;
inline constexpr uint32_t kMsrMtrrDefaultType = 0x2ff;
inline constexpr uint32_t kMsrTscDeadline = 0x6e0;
inline constexpr uint32_t kMsrXss = 0xda0;
inline constexpr uint32_t kMsrStar = 0xc0000081;
inline constexpr uint32_t kMsrLstar = 0xc0000082;
inline constexpr uint32_t kMsrSyscallMask = 0xc0000084;
inline constexpr uint32_t kMsrKernelGsBase = 0xc0000102;
inline constexpr uint32_t kMsrTscAux = 0xc0000103;

}  // namespace cube::vmm

#endif  // CUBE_VMM_SEGMENTS_H_
