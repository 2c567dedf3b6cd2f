#include "vmm/ring0/interpreter.h"

#include <algorithm>
#include <array>

#include "vmm/ring0/code_cache.h"
#include "vmm/ring0/decoder.h"
#include "vmm/ring0/handler_support.h"

namespace cube::vmm::ring0 {

// Not an instruction: the block was cut, and goes on with the one that would stand here.
const Op* EndOfBlock(Cpu& cpu, const Op* op) {
  --cpu.instructions;  // Jump() counts this operation as well
  return Jump(cpu, op, cpu.r[kCodePageRegister] + op->at);
}

namespace {

Op CutAt(uint16_t at) {
  Op op;
  op.at = at;
  op.set_handler(EndOfBlock);
  return op;
}

// Decodes from `bytes`, the rest of a page, until the block ends. Returns the number of operations;
// 0 if already the first instruction reaches into the next page.
size_t DecodeBlock(std::span<const uint8_t> bytes, uint16_t at, std::span<Op> ops) {
  size_t count = 0;
  while (count + 1 < ops.size()) {
    Decoded decoded = Decode(bytes, at, &ops[count]);
    if (decoded == Decoded::kTruncated) break;
    uint8_t length = ops[count].length;
    ++count;
    bytes = bytes.subspan(length);
    at = static_cast<uint16_t>(at + length);
    // What ends a block may still go on to the next instruction, as a load of CR3 does.
    if (decoded == Decoded::kEnds || bytes.empty()) break;
  }
  if (count == 0) return 0;
  ops[count] = CutAt(at);
  return count + 1;
}

// An instruction that is not kept: one across two pages, or in a page of user space, whose
// content may change without being seen. It is decoded at every visit.
const Op* DecodeOnce(Cpu& cpu, uint64_t rip, const SoftMmu::Page& page) {
  std::array<uint8_t, kMaxInstruction> bytes;
  size_t here = std::min<size_t>(bytes.size(), kPageSize - (rip & (kPageSize - 1)));
  memcpy(bytes.data(), page.host, here);
  auto at = static_cast<uint16_t>(rip & (kPageSize - 1));
  Decoded decoded = Decode({bytes.data(), here}, at, &cpu.single[0]);
  if (decoded == Decoded::kTruncated) {
    SoftMmu::Page next;
    if (here == bytes.size() ||
        !cpu.mmu->Translate(cpu, rip + here, SoftMmu::Access::kFetch, &next)) {
      if (cpu.stop == Stop::kNone) cpu.stop = Stop::kHandOff;
      return nullptr;
    }
    if (next.host == nullptr) {
      cpu.stop = Stop::kHandOff;
      return nullptr;
    }
    memcpy(bytes.data() + here, next.host, bytes.size() - here);
    decoded = Decode(bytes, at, &cpu.single[0]);
    if (decoded == Decoded::kTruncated) {
      // Longer than an instruction may be.
      cpu.stop = Stop::kHandOff;
      return nullptr;
    }
  }
  cpu.single[1] = CutAt(static_cast<uint16_t>(at + cpu.single[0].length));
  return cpu.single;
}

const Op* Begin(Cpu& cpu, uint64_t rip, const Op* ops) {
  if (IsRemembered(rip)) {
    auto place = (reinterpret_cast<const uint8_t*>(ops) - cpu.code_base) / 8;
    cpu.jumps[JumpIndex(rip)] = {static_cast<int32_t>(rip), static_cast<uint32_t>(place)};
  }
  cpu.block_start = ops;
  return ops;
}

const Op* Enter(Cpu& cpu, uint64_t rip) {
  const uint64_t offset = rip & (kPageSize - 1);
  FetchEntry& fetch = cpu.FetchOf(rip);
  if (fetch.page == rip >> 12) {
    if (const Op* ops = cpu.code->Find(fetch.physical | offset)) {
      cpu.r[kCodePageRegister] = rip - offset;
      return Begin(cpu, rip, ops);
    }
  }
  SoftMmu::Page page;
  if (!cpu.mmu->Translate(cpu, rip, SoftMmu::Access::kFetch, &page)) return nullptr;
  if (page.host == nullptr) {
    cpu.stop = Stop::kHandOff;
    return nullptr;
  }
  cpu.r[kCodePageRegister] = rip - offset;
  if (!page.user) {
    // Only where mappings are the kernel's own, and its to flush page by page.
    if (rip >> 63 != 0) fetch = {rip >> 12, page.physical - offset};
    const Op* ops = cpu.code->Find(page.physical);
    if (ops == nullptr) {
      std::array<Op, CodeCache::kMaxBlock> block;
      size_t count = DecodeBlock({page.host, kPageSize - offset}, static_cast<uint16_t>(offset), block);
      if (count != 0) {
        ops = cpu.code->Insert(page.physical, {block.data(), count});
        cpu.mmu->Refresh(cpu);
      }
    }
    if (ops != nullptr) return Begin(cpu, rip, ops);
  }
  cpu.block_start = DecodeOnce(cpu, rip, page);
  return cpu.block_start;
}

}  // namespace

const Op* JumpSlowly(Cpu& cpu, uint64_t rip) {
  cpu.rip = rip;
  if (cpu.budget <= 0 || cpu.attention.load(std::memory_order_relaxed)) {
    cpu.stop = Stop::kPoll;
    return nullptr;
  }
  return Enter(cpu, rip);
}

Stop Interpret(Cpu& cpu) {
  cpu.stop = Stop::kNone;
  const Op* op = Enter(cpu, cpu.rip);
  while (op != nullptr) op = op->Run(cpu);
  return cpu.stop;
}

}  // namespace cube::vmm::ring0
