// A kernel that tries to make user mode see what its page tables no longer say: large pages that
// are split and joined, tables that become data and data that becomes tables, entries that change
// while they are in use. User mode loads and stores through them; a model knows what must happen.
// Prints "ok" and a checksum, or what differed, and resets the machine.
#include <stdint.h>

#include <initializer_list>

extern "C" {
uint64_t RunUser(uint64_t rip, uint64_t address, uint64_t value);
extern volatile uint64_t fault_seen, fault_error, fault_address;
extern uint8_t user_code[4096];
void Main();
// What the compiler may call.
void* memset(void* to, int value, unsigned long size) {
  auto* bytes = static_cast<volatile uint8_t*>(to);
  for (unsigned long i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(value);
  return to;
}
}

namespace {

constexpr uint64_t kPage = 4096, kLarge = 2 << 20, kEntries = 512;
constexpr uint64_t kPresent = 1, kWritable = 2, kUser = 4, kAccessed = 0x20, kDirty = 0x40,
                   kLargeEntry = 0x80;
constexpr uint64_t kAll = kPresent | kWritable | kUser;
constexpr uint64_t kAddress = 0x000ffffffffff000;

// User mode's addresses: regions of 2 MiB each, then a table for the program's page.
constexpr uint64_t kBase = 1ull << 39;
constexpr uint64_t kRegions = 6, kCodeRegion = 100;
constexpr uint64_t kCode = kBase + kCodeRegion * kLarge;
// Physical memory for user mode's pages, and pages that are tables and data by turns.
constexpr uint64_t kFrames = 32 << 20, kLargeFrames = 8;
constexpr uint64_t kPool = 12;
constexpr uint64_t kSteps = STEPS;

alignas(4096) uint64_t pointers[kEntries], directory[kEntries], code_table[kEntries];
alignas(4096) uint64_t pool[kPool][kEntries];
bool is_table[kPool];

uint64_t state = 88172645463325252, sum = 0xcbf29ce484222325;

uint64_t Next() {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}
uint64_t Below(uint64_t end) { return (Next() >> 16) % end; }
void Add(uint64_t value) { sum = (sum ^ value) * 0x100000001b3; }

void Out(uint16_t port, uint8_t value) { asm volatile("out %0, %1" ::"a"(value), "Nd"(port)); }
void Print(const char* text) {
  for (; *text != 0; ++text) Out(0x3f8, static_cast<uint8_t>(*text));
}
void PrintHex(uint64_t value) {
  for (int shift = 60; shift >= 0; shift -= 4) {
    Out(0x3f8, static_cast<uint8_t>("0123456789abcdef"[value >> shift & 15]));
  }
}
[[noreturn]] void Fail(const char* what, uint64_t step, uint64_t address, uint64_t entry,
                       uint64_t got, uint64_t wanted) {
  Print(what);
  for (uint64_t value : {step, address, entry, got, wanted}) {
    Print(" ");
    PrintHex(value);
  }
  Print("\n");
  Out(0x64, 0xfe);
  while (true) asm volatile("hlt");
}

uint64_t Cr3() {
  uint64_t value;
  asm volatile("mov %%cr3, %0" : "=r"(value));
  return value;
}
void SetCr3(uint64_t value) { asm volatile("mov %0, %%cr3" ::"r"(value) : "memory"); }
void Invalidate(uint64_t address) { asm volatile("invlpg (%0)" ::"r"(address) : "memory"); }

volatile uint64_t* Memory(uint64_t physical) {
  return reinterpret_cast<volatile uint64_t*>(physical);
}
uint64_t Physical(const uint64_t* table) { return reinterpret_cast<uint64_t>(table); }
void Store(uint64_t* entry, uint64_t value) { *const_cast<volatile uint64_t*>(entry) = value; }

uint64_t AnyFrame() { return kFrames + Below(kLargeFrames * kEntries) * kPage; }
uint64_t AnyLargeFrame() { return kFrames + Below(kLargeFrames) * kLarge; }
// A page of the pool that is data now, if there is one.
uint64_t PoolData() {
  uint64_t i = Below(kPool);
  return is_table[i] ? AnyFrame() : Physical(pool[i]);
}

uint64_t* TableOf(uint64_t region) {
  uint64_t entry = directory[region];
  if ((entry & kPresent) == 0 || (entry & kLargeEntry) != 0) return nullptr;
  return reinterpret_cast<uint64_t*>(entry & kAddress);
}

// The entry that maps `address`, of whichever size.
uint64_t* EntryOf(uint64_t address) {
  uint64_t region = (address - kBase) / kLarge;
  uint64_t* table = TableOf(region);
  return table != nullptr ? table + address / kPage % kEntries : directory + region;
}

// What user mode does at `address` must be what the entry there says.
void Access(uint64_t step, uint64_t address, bool write) {
  uint64_t* at = EntryOf(address);
  uint64_t entry = *at;
  bool large = at >= directory && at < directory + kEntries;
  uint64_t physical = large ? (entry & kAddress & ~(kLarge - 1)) + address % kLarge
                            : (entry & kAddress) + address % kPage;
  bool present = (entry & kPresent) != 0;
  bool allowed = present && (!write || (entry & kWritable) != 0);
  uint64_t value = write ? Next() : allowed ? *Memory(physical) : 0;
  uint64_t got = RunUser(kCode + (write ? 16 : 0), address, value);
  if ((fault_seen != 0) == allowed) Fail("fault", step, address, entry, fault_seen, !allowed);
  if (!allowed) {
    uint64_t error = 4 | (write ? 2 : 0) | (present ? 1 : 0);
    if (fault_error != error) Fail("error code", step, address, entry, fault_error, error);
    if (fault_address != address) Fail("CR2", step, address, entry, fault_address, address);
    Add(error);
    return;
  }
  if (write) got = *Memory(physical);
  if (got != value) Fail(write ? "store" : "load", step, address, entry, got, value);
  uint64_t used = kAccessed | (write ? kDirty : 0);
  if ((*at & used) != used) Fail("accessed and dirty", step, address, *at, *at & used, used);
  Add(got);
}

void Unlink(uint64_t table) {
  is_table[table] = false;
  // What looks like entries, for whom it may concern.
  for (uint64_t i = 0; i < kEntries; ++i)
    Store(&pool[table][i], AnyFrame() | kAll | kAccessed | kDirty);
}

// Frees the region's table, if it has one.
void DropTable(uint64_t region, uint64_t entry) {
  uint64_t* table = TableOf(region);
  Store(&directory[region], entry);
  SetCr3(Cr3());
  for (uint64_t i = 0; i < kPool; ++i) {
    if (table == pool[i]) Unlink(i);
  }
}

// A page of the pool that is to be a table: nobody may have it as data any more.
int64_t TakeTable() {
  uint64_t first = Below(kPool);
  for (uint64_t n = 0; n < kPool; ++n) {
    uint64_t i = (first + n) % kPool;
    if (is_table[i]) continue;
    for (uint64_t region = 0; region < kRegions; ++region) {
      uint64_t* table = TableOf(region);
      if (table == nullptr) continue;
      for (uint64_t j = 0; j < kEntries; ++j) {
        if ((table[j] & kAddress) == Physical(pool[i])) {
          Store(&table[j], 0);
          Invalidate(kBase + region * kLarge + j * kPage);
        }
      }
    }
    is_table[i] = true;
    return static_cast<int64_t>(i);
  }
  return -1;
}

// The same pages by a table of small ones, as a kernel splits a large page.
void Split(uint64_t region) {
  uint64_t entry = directory[region];
  if (TableOf(region) != nullptr) return;
  int64_t index = TakeTable();
  if (index < 0) return;
  uint64_t flags = entry & (kAll | kAccessed | kDirty);
  for (uint64_t i = 0; i < kEntries; ++i) {
    Store(&pool[index][i],
          (entry & kPresent) == 0 ? 0 : (entry & kAddress & ~(kLarge - 1)) + i * kPage + flags);
  }
  Store(&directory[region], Physical(pool[index]) | kAll);
  for (uint64_t i = 0; i < 4; ++i) Invalidate(kBase + region * kLarge + Below(kEntries) * kPage);
  SetCr3(Cr3());
}

void Step(uint64_t step) {
  uint64_t region = Below(kRegions);
  uint64_t address = kBase + region * kLarge + Below(kEntries) * kPage + Below(kEntries) * 8;
  Access(step, address, Below(2) == 0);  // so that it is in use before it changes
  uint64_t* table = TableOf(region);
  uint64_t* entry = EntryOf(address);
  switch (Below(12)) {
    case 0:
    case 1:
      Split(region);
      break;
    case 2:
      DropTable(region, AnyLargeFrame() | kAll | kLargeEntry);
      break;
    case 3:
      DropTable(region, Below(3) == 0 ? 0 : AnyLargeFrame() | kPresent | kUser | kLargeEntry);
      break;
    case 4:
      // Another large page in its place, or one of small ones in the place of all.
      if (table == nullptr) Store(entry, AnyLargeFrame() | kAll | kLargeEntry);
      Invalidate(address);
      break;
    case 5:
    case 6:
      if (table != nullptr) Store(entry, AnyFrame() | kAll);
      Invalidate(address);
      break;
    case 7:
    case 8:
      if (table != nullptr) Store(entry, PoolData() | kAll);
      Invalidate(address);
      break;
    case 9:
      Store(entry, *entry & ~kWritable);
      Invalidate(address);
      break;
    case 10:
      if (table != nullptr) Store(entry, 0);
      Invalidate(address);
      break;
    default:
      Store(entry, *entry & ~(kAccessed | kDirty));
      Invalidate(address);
      break;
  }
  Access(step, address, false);
  Access(step, address, true);
  Access(step, kBase + Below(kRegions) * kLarge + Below(kEntries) * kPage, Below(2) == 0);
}

}  // namespace

void Main() {
  auto* root = reinterpret_cast<uint64_t*>(Cr3());
  for (uint64_t i = 0; i < kLargeFrames * kEntries; ++i) {
    for (uint64_t j = 0; j < kPage / 8; j += 64) *Memory(kFrames + i * kPage + j * 8) = i << 16 | j;
  }
  for (uint64_t region = 0; region < kRegions; ++region) {
    directory[region] = (kFrames + region * kLarge) | kAll | kLargeEntry;
  }
  code_table[0] = reinterpret_cast<uint64_t>(user_code) | kPresent | kUser;
  directory[kCodeRegion] = Physical(code_table) | kAll;
  pointers[0] = Physical(directory) | kAll;
  Store(&root[1], Physical(pointers) | kAll);
  SetCr3(Cr3());
  for (uint64_t step = 0; step < kSteps; ++step) Step(step);
  Print("ok ");
  PrintHex(sum);
  Print("\n");
}
