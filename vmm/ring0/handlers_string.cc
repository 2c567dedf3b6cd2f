#include <algorithm>

#include "vmm/ring0/handler_support.h"
#include "vmm/ring0/handlers.h"

// String instructions. A repeated one works through runs of plain memory within a page; RSI, RDI and
// RCX advance with each, so that a fault in the middle leaves what the processor would.
namespace cube::vmm::ring0 {
namespace {

// Elements after which a repeated instruction looks at the world outside, being begun again at the
// same RIP: an interrupt may come between iterations.
constexpr uint64_t kMaxElements = 1 << 18;

template <typename T>
uint64_t Step(const Cpu& cpu) {
  return (cpu.system_flags & kDirectionFlag) != 0 ? -uint64_t{sizeof(T)} : uint64_t{sizeof(T)};
}

uint64_t Source(const Cpu& cpu, const Op* op) {
  return cpu.r[kRsi] + cpu.segment_base[op->segment];
}

template <String kString, typename T>
bool DoOne(Cpu& cpu, const Op* op) {
  uint64_t step = Step<T>(cpu);
  T left, right;
  switch (kString) {
    case String::kMove:
      if (!Load<T>(cpu, Source(cpu, op), &left) || !Store<T>(cpu, cpu.r[kRdi], left)) return false;
      break;
    case String::kStore:
      if (!Store<T>(cpu, cpu.r[kRdi], Reg<T>(cpu, kRax))) return false;
      break;
    case String::kLoad:
      if (!Load<T>(cpu, Source(cpu, op), &left)) return false;
      SetReg<T>(cpu, kRax, left);
      break;
    case String::kCompare:
      if (!Load<T>(cpu, Source(cpu, op), &left) || !Load<T>(cpu, cpu.r[kRdi], &right)) return false;
      DoAlu<Alu::kCmp, T>(left, right, &cpu.flags);
      break;
    case String::kScan:
      if (!Load<T>(cpu, cpu.r[kRdi], &right)) return false;
      DoAlu<Alu::kCmp, T>(Reg<T>(cpu, kRax), right, &cpu.flags);
      break;
  }
  if (kString != String::kStore && kString != String::kScan) cpu.r[kRsi] += step;
  if (kString != String::kLoad) cpu.r[kRdi] += step;
  return true;
}

template <String kString, typename T>
const Op* Once(Cpu& cpu, const Op* op) {
  return DoOne<kString, T>(cpu, op) ? op + 1 : Stopped(cpu, op);
}

template <typename T>
void FillRun(uint8_t* to, T value, size_t count) {
  if constexpr (sizeof(T) == 1) {
    memset(to, value, count);
  } else {
    for (size_t i = 0; i < count; ++i) memcpy(to + i * sizeof(T), &value, sizeof(T));
  }
}

// Moves or stores as much as lies in one page of each operand; false if stopped. Does nothing if
// the run is not plain memory or no whole element fits.
template <String kString, typename T>
bool DoRun(Cpu& cpu, const Op* op, uint64_t left, uint64_t* done) {
  *done = 0;
  if ((cpu.system_flags & kDirectionFlag) != 0) return true;
  size_t limit = static_cast<size_t>(std::min<uint64_t>(left, kPageSize)) * sizeof(T);
  SoftMmu::Run from, to;
  if constexpr (kString == String::kMove) {
    if (!cpu.mmu->ReadableRun(cpu, Source(cpu, op), limit, &from)) return false;
    limit = std::min(limit, from.size);
    // An element across two pages: all of the source is read before the destination may fault.
    if (limit < sizeof(T)) return true;
  }
  if (!cpu.mmu->WritableRun(cpu, cpu.r[kRdi], limit, &to)) return false;
  size_t count = std::min(limit, to.size) / sizeof(T);
  if (count == 0) return true;
  size_t size = count * sizeof(T);
  if constexpr (kString == String::kStore) {
    FillRun<T>(to.host, Reg<T>(cpu, kRax), count);
  } else if (to.host + size <= from.host || from.host + size <= to.host) {
    memcpy(to.host, from.host, size);
  } else {
    // Overlapping operands repeat what was just written, element by element.
    for (size_t i = 0; i < count; ++i) {
      T value;
      memcpy(&value, from.host + i * sizeof(T), sizeof(T));
      memcpy(to.host + i * sizeof(T), &value, sizeof(T));
    }
  }
  if constexpr (kString == String::kMove) cpu.r[kRsi] += size;
  cpu.r[kRdi] += size;
  *done = count;
  return true;
}

template <String kString, typename T, Repeat kRepeat>
const Op* Repeated(Cpu& cpu, const Op* op) {
  constexpr bool kCompares = kString == String::kCompare || kString == String::kScan;
  uint64_t budget = kMaxElements;
  while (cpu.r[kRcx] != 0) {
    if (budget == 0) return StopAt(cpu, op, Stop::kPoll);
    uint64_t done = 0;
    if constexpr (kString == String::kMove || kString == String::kStore) {
      if (!DoRun<kString, T>(cpu, op, std::min(cpu.r[kRcx], budget), &done)) {
        return Stopped(cpu, op);
      }
    }
    if (done == 0) {
      if (!DoOne<kString, T>(cpu, op)) return Stopped(cpu, op);
      done = 1;
    }
    cpu.r[kRcx] -= done;
    budget -= done;
    if constexpr (kCompares) {
      if (((cpu.flags & kZeroBit) != 0) != (kRepeat == Repeat::kWhileEqual)) break;
    }
  }
  return op + 1;
}

template <String kString, typename T>
Handler Pick(Repeat repeat) {
  switch (repeat) {
    case Repeat::kNone: return Once<kString, T>;
    case Repeat::kWhileEqual: return Repeated<kString, T, Repeat::kWhileEqual>;
    case Repeat::kWhileNotEqual: return Repeated<kString, T, Repeat::kWhileNotEqual>;
  }
  return nullptr;
}
template <String kString>
Handler PickSize(unsigned size, Repeat repeat) {
  switch (size) {
    case 1: return Pick<kString, uint8_t>(repeat);
    case 2: return Pick<kString, uint16_t>(repeat);
    case 4: return Pick<kString, uint32_t>(repeat);
    default: return Pick<kString, uint64_t>(repeat);
  }
}

}  // namespace

Handler StringHandler(String string, unsigned size, Repeat repeat) {
  switch (string) {
    case String::kMove: return PickSize<String::kMove>(size, repeat);
    case String::kStore: return PickSize<String::kStore>(size, repeat);
    case String::kLoad: return PickSize<String::kLoad>(size, repeat);
    case String::kCompare: return PickSize<String::kCompare>(size, repeat);
    case String::kScan: return PickSize<String::kScan>(size, repeat);
  }
  return nullptr;
}

}  // namespace cube::vmm::ring0
