#include "vmm/ring0/lockstep.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "vmm/assist/guest_virtual.h"
#include "vmm/memory_map.h"
#include "vmm/paging.h"
#include "vmm/ring0/decoder.h"
#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/handlers.h"
#include "vmm/ring0/instruction_table.h"
#include "vmm/ring0/interpreter.h"
#include "vmm/segments.h"

namespace cube::vmm::ring0 {
namespace {

// Jumps are this many instructions apart, about.
constexpr uint64_t kInstructionsPerJump = 5;
// RF is set by what delivers exceptions, and means nothing between instructions that cannot break.
constexpr uint64_t kIgnoredFlags = kFlagResume;

int32_t Number(Handler handler) {
  Op op;
  op.set_handler(handler);
  return op.handler;
}

}  // namespace

Lockstep::Lockstep(std::unique_ptr<SharedRam> ram, GuestMemory view, Options options)
    : ram_(std::move(ram)), view_(std::move(view)), options_(std::move(options)) {
  for (bool with_aux : {false, true}) run_once_.insert(Number(ReadTscHandler(with_aux)));
  for (unsigned size : {1u, 2u, 4u}) {
    for (bool output : {false, true}) run_once_.insert(Number(PortHandler(output, size)));
  }
  for (unsigned size : {2u, 4u, 8u}) {
    for (bool memory : {false, true}) {
      run_once_.insert(Number(BitScanHandler(BitScan::kTrailing, size, memory)));
      run_once_.insert(Number(BitScanHandler(BitScan::kLeading, size, memory)));
    }
  }
  runs_on_.insert(Number(FenceHandler()));
  runs_on_.insert(Number(SwapGsHandler()));
  runs_on_.insert(Number(InterruptReturnHandler()));
  for (unsigned kind = 0; kind < 4; ++kind) {
    for (unsigned size : {4u, 8u}) runs_on_.insert(Number(SegmentBaseHandler(kind, size)));
  }
  for (String string :
       {String::kMove, String::kStore, String::kLoad, String::kCompare, String::kScan}) {
    for (unsigned size : {1u, 2u, 4u, 8u}) {
      repeated_.insert(Number(StringHandler(string, size, Repeat::kWhileEqual)));
      repeated_.insert(Number(StringHandler(string, size, Repeat::kWhileNotEqual)));
    }
  }
}

Result<std::unique_ptr<Lockstep>> Lockstep::Create(const Kvm& kvm, const GuestMemory& memory,
                                                   std::span<const kvm_cpuid_entry2> cpuid,
                                                   Options options) {
  std::unique_ptr<SharedRam> ram;
  std::vector<MemoryRegion> regions;
  for (const MemoryRegion& region : memory.regions()) {
    if (!region.ram) {
      regions.push_back(region);
      continue;
    }
    if (ram != nullptr || region.guest_address != 0) {
      return Errorf("lockstep is for guests whose RAM is in one piece");
    }
    CUBE_ASSIGN(ram, SharedRam::Create(region.host));
    regions.push_back({0, ram->view(), true});
  }
  std::unique_ptr<Lockstep> lockstep(
      new Lockstep(std::move(ram), GuestMemory::Borrow(std::move(regions)), std::move(options)));
  CUBE_ASSIGN(lockstep->reference_, ReferenceVcpu::Create(kvm, lockstep->view_, cpuid));
  return lockstep;
}

Stop Lockstep::Interpret(Cpu& cpu, const kvm_sregs& segments) {
  if (delivering_) {
    // The engine has delivered what the last instruction raised. KVM's step goes on to the first
    // instruction of the handler; the assist layer, whose INT is, stops before it.
    delivering_ = false;
    ++counts_.exceptions;
    if (cpu.exception.is_trap) {
      raised_.runs_on = false;
      raised_.after = CpuState::Of(cpu, cpu.rip);
    }
    executed_.push_back(raised_);
    return RunStretches(cpu, segments);
  }
  if (std::exchange(in_user_mode_, false) && options_.entries != 0 && left_ == 0 &&
      ++entries_ % options_.entries == 0) {
    ++counts_.entries;
    next_ = cpu.instructions;
  }
  bool always = options_.length >= options_.period;
  if (left_ == 0 && !always && cpu.instructions < next_) {
    // The engine alone, up to about there. To come back early costs it a look outside.
    uint64_t jumps = (next_ - cpu.instructions) / kInstructionsPerJump + 1;
    cpu.budget = static_cast<int32_t>(std::min<uint64_t>(static_cast<uint32_t>(cpu.budget), jumps));
    Stop stop = ring0::Interpret(cpu);
    in_user_mode_ = stop == Stop::kUserReturn;
    return stop;
  }
  if (left_ == 0) {
    ++counts_.stretches;
    left_ = options_.length;
    next_ = cpu.instructions + options_.period;
  }
  Stop stop = RunStretches(cpu, segments);
  in_user_mode_ = stop == Stop::kUserReturn;
  return stop;
}

// The interpreter's loop, with a look at each instruction.
Stop Lockstep::RunStretches(Cpu& cpu, const kvm_sregs& segments) {
  if (!open_) segments_ = segments;
  cpu.stop = Stop::kNone;
  const Op* op = JumpSlowly(cpu, cpu.rip);
  while (op != nullptr) {
    if (op->length == 0) {
      // The end of a block that was cut is no instruction.
      op = op->Run(cpu);
      continue;
    }
    if (IsRunOnce(cpu, op)) {
      Close(cpu);
      ++counts_.run_once;
      op = op->Run(cpu);
      continue;
    }
    if (!open_) {
      start_ = CpuState::Of(cpu, cpu.r[kCodePageRegister] + op->at);
      start_kernel_gs_base_ = cpu.kernel_gs_base;
      open_ = true;
      ram_->Watch();
    }
    op = RunOne(cpu, op);
    if (left_ > 0) --left_;
    if (left_ == 0 && op != nullptr) op = StopAt(cpu, op, Stop::kPoll);
  }
  if (cpu.stop == Stop::kException && open_) {
    delivering_ = true;
  } else {
    Close(cpu);
  }
  return cpu.stop;
}

bool Lockstep::IsRunOnce(const Cpu& cpu, const Op* op) const {
  return run_once_.contains(op->handler) ||
         (repeated_.contains(op->handler) && cpu.r[kRcx] > kMaxRepeats);
}

const Op* Lockstep::RunOne(Cpu& cpu, const Op* op) {
  uint64_t page = cpu.r[kCodePageRegister];
  uint64_t block = page + cpu.block_start->at;
  uint64_t rip = page + op->at;
  bool repeats = repeated_.contains(op->handler), runs_on = runs_on_.contains(op->handler);
  uint64_t count = cpu.instructions + static_cast<uint64_t>(op - cpu.block_start);
  const Op* next = op->Run(cpu);
  if (options_.spoil) options_.spoil(cpu, next, counts_.compared + executed_.size());
  if (next != nullptr) {
    executed_.push_back(
        {block, rip, repeats, runs_on, CpuState::Of(cpu, cpu.r[kCodePageRegister] + next->at)});
    return next;
  }
  // It was carried out if it counts as such: a jump, after which the interpreter stopped.
  if (cpu.instructions > count) {
    executed_.push_back({block, rip, repeats, runs_on, CpuState::Of(cpu, cpu.rip)});
    raised_ = {cpu.rip, cpu.rip, false, true, {}};
  } else {
    raised_ = {block, rip, repeats, true, {}};
  }
  return nullptr;
}

void Lockstep::Close(const Cpu& cpu) {
  if (!open_) return;
  open_ = false;
  ram_->Unwatch();
  Status compared = Compare(cpu);
  if (!compared.ok()) Add(compared.error().message());
  executed_.clear();
}

Status Lockstep::Compare(const Cpu& cpu) {
  if (executed_.empty()) return OkStatus();
  ram_->Rewind();
  CUBE_TRY(reference_->Load(start_, start_kernel_gs_base_, segments_));
  for (const Executed& executed : executed_) {
    if (executed.runs_on) continue;
    CUBE_ASSIGN(ReferenceVcpu::Outcome outcome, Follow(executed));
    if (outcome != ReferenceVcpu::Outcome::kDone) {
      ++counts_.abandoned;
      return OkStatus();
    }
    ++counts_.compared;
    CUBE_ASSIGN(CpuState state, reference_->State());
    uint64_t flags = (executed.after.rflags ^ state.rflags) & ~kIgnoredFlags;
    if (flags != 0 && (flags & ~UndefinedFlags(executed)) == 0) {
      // They go on with the same, so that whoever looks at them is not reported in their place.
      ++counts_.undefined_flags;
      state.rflags = executed.after.rflags;
      CUBE_TRY(reference_->SetFlags(state.rflags));
    }
    if (auto difference = executed.after.Difference(state, kIgnoredFlags)) {
      Report(executed, *difference);
      return OkStatus();
    }
  }
  CUBE_ASSIGN(uint64_t kernel_gs_base, reference_->KernelGsBase());
  if (kernel_gs_base != cpu.kernel_gs_base && !executed_.back().runs_on) {
    Report(executed_.back(), Format("kernel gs base: interpreted %#lx, KVM %#lx",
                                    cpu.kernel_gs_base, kernel_gs_base));
  }
  return CompareMemory(executed_.back().after);
}

Result<ReferenceVcpu::Outcome> Lockstep::Follow(const Executed& executed) {
  while (true) {
    CUBE_ASSIGN(ReferenceVcpu::Outcome outcome, reference_->Step());
    if (outcome != ReferenceVcpu::Outcome::kDone || !executed.repeats) return outcome;
    CUBE_ASSIGN(CpuState state, reference_->State());
    if (state.rip != executed.rip) return outcome;
  }
}

Status Lockstep::CompareMemory(const CpuState& last) {
  CUBE_ASSIGN(std::vector<uint64_t> pages, ram_->Written());
  for (uint64_t page : pages) {
    ++counts_.pages;
    const uint8_t* ours = ram_->ram().data() + page * kPageSize;
    const uint8_t* theirs = ram_->view().data() + page * kPageSize;
    if (memcmp(ours, theirs, kPageSize) == 0) continue;
    for (uint64_t at = 0; at < kPageSize; at += 8) {
      uint64_t interpreted, kvm;
      memcpy(&interpreted, ours + at, 8);
      memcpy(&kvm, theirs + at, 8);
      if (interpreted == kvm) continue;
      // Either sets them when it walks the tables, which a TLB may spare it.
      if (((interpreted ^ kvm) & ~(kEntryAccessed | kEntryDirty)) == 0 &&
          IsTable(page * kPageSize, last.cr3)) {
        ++counts_.accessed_bits;
        continue;
      }
      uint64_t offset = page * kPageSize + at;
      CUBE_ASSIGN(std::optional<size_t> writer, LastWriter(offset));
      Report(executed_[writer.value_or(executed_.size() - 1)],
             Format("memory at %#lx%s: interpreted %#lx, KVM %#lx", offset,
                    writer ? "" : ", which KVM did not write in this stretch", interpreted, kvm));
      return OkStatus();
    }
  }
  return OkStatus();
}

Result<std::optional<size_t>> Lockstep::LastWriter(uint64_t offset) {
  ram_->Rewind();
  CUBE_TRY(reference_->Load(start_, start_kernel_gs_base_, segments_));
  const uint8_t* at = ram_->view().data() + offset;
  std::optional<size_t> last;
  uint64_t before, after;
  for (size_t i = 0; i < executed_.size(); ++i) {
    memcpy(&before, at, 8);
    if (!executed_[i].runs_on) CUBE_TRY(Follow(executed_[i]));
    memcpy(&after, at, 8);
    if (before != after) last = i;
  }
  return last;
}

// Whether the tables under `cr3` have `page` among them.
bool Lockstep::IsTable(uint64_t page, uint64_t cr3) const {
  std::set<uint64_t> seen;
  std::vector<std::pair<uint64_t, int>> tables = {{cr3 & kEntryAddress, 4}};
  while (!tables.empty()) {
    auto [table, level] = tables.back();
    tables.pop_back();
    if (table == page) return true;
    if (level == 1 || !seen.insert(table).second) continue;
    for (uint64_t i = 0; i < kEntriesPerTable; ++i) {
      auto entry = view_.ReadObject<uint64_t>(table + i * 8);
      if (!entry) break;
      bool leads_on = (*entry & kEntryPresent) != 0 && (level == 4 || (*entry & kEntryLarge) == 0);
      if (leads_on) tables.emplace_back(*entry & kEntryAddress, level - 1);
    }
  }
  return false;
}

std::vector<uint8_t> Lockstep::CodeAt(uint64_t rip) const {
  kvm_sregs sregs = segments_;
  sregs.cr3 = start_.cr3;
  std::vector<uint8_t> code(kMaxInstruction);
  code.resize(GuestVirtual(view_, sregs, 0).PeekBytes(rip, code));
  return code;
}

uint64_t Lockstep::UndefinedFlags(const Executed& executed) const {
  // Those of a count do not change it.
  return ring0::UndefinedFlags(CodeAt(executed.rip), executed.after.r[kRcx]);
}

void Lockstep::Report(const Executed& executed, const std::string& what) {
  std::string text = decoder_.Disassemble(CodeAt(executed.rip), executed.rip, 1);
  std::replace(text.begin(), text.end(), '\n', ' ');
  Add(Format("block %#lx, instruction %s: %s", executed.block, text.c_str(), what.c_str()));
}

void Lockstep::Add(std::string report) {
  if (reports_.size() < kMaxReports) reports_.push_back(std::move(report));
  if (options_.reported) options_.reported();
}

}  // namespace cube::vmm::ring0
