#ifndef CUBE_VMM_RING0_CPU_H_
#define CUBE_VMM_RING0_CPU_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>

namespace cube::vmm {
class Bus;
}

namespace cube::vmm::ring0 {

struct Op;
class SoftMmu;
class CodeCache;

// The arithmetic flags as LAHF and SETO leave them in AX: SF, ZF, AF, PF, CF at their places of
// RFLAGS in bits 15 to 8, OF in bit 0. So a handler takes them from the processor in two
// instructions, and tests them without knowing what made them.
using ArithmeticFlags = uint16_t;
inline constexpr ArithmeticFlags kOverflowBit = 1 << 0;
inline constexpr ArithmeticFlags kCarryBit = 1 << 8;
inline constexpr ArithmeticFlags kParityBit = 1 << 10;
inline constexpr ArithmeticFlags kAdjustBit = 1 << 12;
inline constexpr ArithmeticFlags kZeroBit = 1 << 14;
inline constexpr ArithmeticFlags kSignBit = 1 << 15;

// Indices of Cpu::r beyond the sixteen general-purpose registers.
inline constexpr uint8_t kZeroRegister = 16;      // no base or no index
inline constexpr uint8_t kCodePageRegister = 17;  // virtual address of the page being executed

// Indices of Cpu::segment_base.
inline constexpr uint8_t kFlatSegment = 0;
inline constexpr uint8_t kFsSegment = 1;
inline constexpr uint8_t kGsSegment = 2;

// Why the interpreter stopped; Cpu::rip is the instruction in question, not yet begun, except for
// kPoll, where it is the next one.
enum class Stop : uint8_t {
  kNone,
  kPoll,        // it has run for a while, or Cpu::attention is set
  kHandOff,     // KVM must execute this instruction
  kPort,        // likewise, an access to port Cpu::port, which is none of our devices'
  kAssist,      // the assist layer must
  kMsr,         // RDMSR or WRMSR of one that is not the interpreter's
  kException,   // it raised Cpu::exception
  kUserReturn,  // an IRET or SYSRET to user mode, that of Cpu::user_return if it is set
  kHalt,        // HLT, or STI followed by HLT
};

struct PendingException {
  uint8_t vector;
  bool has_error_code;
  bool is_trap;  // the frame shows the next instruction
  uint32_t error_code;
  uint64_t address;  // CR2 of a page fault
};

// User mode as an IRET or SYSRET enters it.
struct UserReturn {
  uint64_t rip = 0, rsp = 0, rflags = 0;
};

// A soft TLB entry: a guest page number that may be read or written, and what to add to a guest
// address to get the host's.
inline constexpr uint64_t kNoPage = ~0ull;
struct TlbEntry {
  uint64_t read_page = kNoPage;
  uint64_t write_page = kNoPage;
  uint64_t addend = 0;
  // The physical page plus one if `read_page` may be written, but with care (PageFlags); else 0.
  uint64_t special = 0;
};
// Direct-mapped; the second half is for addresses of the upper half, where kernels keep global
// mappings, so that a load of CR3 costs only the first.
inline constexpr size_t kTlbHalf = 256;

// Where jumps into the top 2 GiB of the address space lead, in which kernels keep their code: the
// low half of the address, and the block's place in the code cache.
struct JumpEntry {
  int32_t rip = 0;
  uint32_t place = 0;
};
inline constexpr size_t kJumpEntries = 4096;
inline size_t JumpIndex(uint64_t rip) { return (rip ^ rip >> 12) & (kJumpEntries - 1); }
inline bool IsRemembered(uint64_t rip) { return rip >> 31 == (1ull << 33) - 1; }
// What an empty entry holds: an address that belongs to another.
inline int32_t NoJump(size_t index) { return static_cast<int32_t>(index ^ 1); }

// Translations of the upper half, of pages that only ring 0 may use, for fetches.
struct FetchEntry {
  uint64_t page = kNoPage;
  uint64_t physical = 0;
};
inline constexpr size_t kFetchEntries = 64;

// One vCPU as the interpreter sees it: 64-bit mode, privilege level 0. Owned by the vCPU's thread;
// only `attention` may be set by others.
struct Cpu {
  uint64_t r[18] = {};  // RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15, zero, code page
  uint64_t rip = 0;
  uint64_t system_flags = 2;  // RFLAGS without the arithmetic ones
  ArithmeticFlags flags = 0;
  Stop stop = Stop::kNone;
  uint64_t segment_base[3] = {};
  uint64_t kernel_gs_base = 0;
  uint64_t cr0 = 0, cr2 = 0, cr3 = 0, cr4 = 0, efer = 0;
  uint16_t es = 0, cs = 0, ss = 0, ds = 0, fs = 0, gs = 0;
  // As the guest set it; while KVM runs it may be another.
  uint64_t idt_base = 0;
  uint16_t idt_limit = 0;
  // The stack selector of SYSCALL, whose descriptor the guest promises to be flat (STAR).
  uint16_t kernel_ss = 0;
  // The selectors of SYSRET, of 64-bit user mode, whose descriptors it promises likewise.
  uint16_t user_cs = 0, user_ss = 0;
  // Physical addresses from this bit up are reserved in page-table entries.
  uint8_t physical_bits = 46;
  // What to add to the host's TSC; not offered if not known.
  bool tsc_known = false;
  uint64_t tsc_offset = 0;
  uint64_t tsc_aux = 0;
  PendingException exception = {};
  // Between an NMI and the IRET that ends it, which KVM must see.
  bool in_nmi = false;
  // What a stop for kUserReturn leads to, if it is to 64-bit user mode with the selectors of SYSRET
  // and flags that ask for nothing special.
  std::optional<UserReturn> user_return;

  // Jumps left until the next look at the world outside.
  int32_t budget = 0;
  // What PAUSE takes off the budget: with several vCPUs, a spin loop must let the others run.
  int32_t pause_cost = 0;
  bool paused = false;  // since the owner last looked
  std::atomic<bool> attention{false};
  // The first operation of the block being run, for counting.
  const Op* block_start = nullptr;
  uint64_t instructions = 0;

  // What PageFlags::generation() and CodeCache::generation() were when `tlb` and `jumps` agreed
  // with them.
  uint64_t page_generation = 0;
  uint64_t code_generation = 0;

  const Bus* ports = nullptr;
  uint16_t port = 0;  // of Stop::kPort
  SoftMmu* mmu = nullptr;
  CodeCache* code = nullptr;
  // The block of an instruction that is not kept in the code cache: two operations. Set by Cpu's
  // owner.
  Op* single = nullptr;
  TlbEntry tlb[2 * kTlbHalf];
  FetchEntry fetches[kFetchEntries];
  // What JumpEntry::place counts from, in units of 8 bytes.
  const uint8_t* code_base = nullptr;
  JumpEntry jumps[kJumpEntries];

  FetchEntry& FetchOf(uint64_t rip) { return fetches[rip >> 12 & (kFetchEntries - 1)]; }

  uint64_t rflags() const {
    return system_flags | (flags >> 8 & 0xd5) | static_cast<uint64_t>(flags & kOverflowBit) << 11;
  }
  void set_rflags(uint64_t value) {
    system_flags = (value & ~0x8d5ull) | 2;
    flags = static_cast<ArithmeticFlags>((value & 0xd5) << 8 | (value >> 11 & 1));
  }
};

}  // namespace cube::vmm::ring0

#endif  // CUBE_VMM_RING0_CPU_H_
