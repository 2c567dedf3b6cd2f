#include "vmm/guest_profiler.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <set>

#include "vmm/assist/guest_virtual.h"

namespace cube::vmm {
namespace {

// Linux's kernel text; early boot runs the same code at its physical address.
constexpr uint64_t kKernelText = 0xffffffff80000000;
constexpr size_t kStackWords = 256;
constexpr size_t kLines = 150;

struct Symbol {
  uint64_t address;
  std::string name;
};

Result<std::vector<Symbol>> ReadSymbols(const std::string& path) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(fopen(path.c_str(), "re"), fclose);
  if (file == nullptr) return ErrnoError("cannot open %s", path.c_str());
  std::vector<Symbol> symbols;
  char name[256], type;
  unsigned long long address;
  while (fscanf(file.get(), "%llx %c %255s", &address, &type, name) == 3) {
    if (type == 't' || type == 'T' || type == 'w' || type == 'W') symbols.push_back({address, name});
  }
  std::stable_sort(symbols.begin(), symbols.end(),
                   [](const Symbol& a, const Symbol& b) { return a.address < b.address; });
  return symbols;
}

void AppendTable(const char* title, const std::map<std::string, uint64_t>& counts, uint64_t total,
                 std::string* text) {
  std::vector<std::pair<uint64_t, std::string>> rows;
  for (const auto& [name, count] : counts) rows.emplace_back(count, name);
  std::sort(rows.rbegin(), rows.rend());
  if (rows.size() > kLines) rows.resize(kLines);
  *text += Format("%s\n", title);
  for (const auto& [count, name] : rows) {
    *text += Format("  %6.2f%%  %s\n", 100.0 * static_cast<double>(count) / static_cast<double>(total),
                    name.c_str());
  }
}

}  // namespace

GuestProfiler::~GuestProfiler() {
  if (timer_ != nullptr) timer_delete(timer_);
}

Status GuestProfiler::Start(int signal, uint32_t interval_us) {
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = signal;
  event._sigev_un._tid = gettid();
  if (timer_create(CLOCK_MONOTONIC, &event, &timer_) < 0) return ErrnoError("timer_create");
  itimerspec spec = {};
  spec.it_interval.tv_nsec = spec.it_value.tv_nsec = static_cast<long>(interval_us) * 1000;
  if (timer_settime(timer_, 0, &spec, nullptr) < 0) return ErrnoError("timer_settime");
  return OkStatus();
}

void GuestProfiler::Sample(KvmVcpu* vcpu, const GuestMemory& memory) {
  auto regs = vcpu->regs();
  auto sregs = vcpu->sregs();
  if (!regs.ok() || !sregs.ok()) return;
  ++total_;
  if (sregs.value()->cs.dpl == 3) {
    ++user_;
    return;
  }
  if (samples_.size() >= kMaxSamples) return;
  GuestVirtual guest(memory, *sregs.value(), regs.value()->rflags);
  uint64_t stack[kStackWords];
  size_t words = guest.PeekBytes(regs.value()->rsp,
                                 {reinterpret_cast<uint8_t*>(stack), sizeof stack}) / 8;
  Taken taken{regs.value()->rip, {}};
  for (size_t i = 0; i < words; ++i) {
    if (stack[i] >= kKernelText + 0x1000000 && stack[i] < kKernelText + 0x4000000) {
      taken.callers.push_back(stack[i]);
    }
  }
  samples_.push_back(std::move(taken));
}

Result<std::string> GuestProfiler::Report(const std::string& system_map) const {
  CUBE_ASSIGN(std::vector<Symbol> symbols, ReadSymbols(system_map));
  auto name = [&](uint64_t address) -> std::string {
    if (address < kKernelText) address += kKernelText;
    auto after = std::upper_bound(symbols.begin(), symbols.end(), address,
                                  [](uint64_t a, const Symbol& s) { return a < s.address; });
    return after == symbols.begin() ? "?" : (after - 1)->name;
  };
  std::map<std::string, uint64_t> own, inclusive;
  for (const Taken& taken : samples_) {
    std::string at = name(taken.rip);
    ++own[at];
    std::set<std::string> seen = {at};
    for (uint64_t caller : taken.callers) seen.insert(name(caller));
    for (const std::string& function : seen) ++inclusive[function];
  }
  uint64_t total = std::max<uint64_t>(total_, 1);
  std::string text = Format("%llu samples, %.1f%% in user mode\n",
                            static_cast<unsigned long long>(total_),
                            100.0 * static_cast<double>(user_) / static_cast<double>(total));
  AppendTable("own", own, total, &text);
  AppendTable("inclusive", inclusive, total, &text);
  return text;
}

}  // namespace cube::vmm
