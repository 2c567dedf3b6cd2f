#include "pool/jail/demotion.h"

#include <dirent.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "base/byte_io.h"

namespace cube::pool {
namespace {

// Percent of the time between two looks. Who runs less than the first is not asked what it wanted.
constexpr uint64_t kIdlePercent = 5;
constexpr uint64_t kBusyPercent = 80;
constexpr uint64_t kCalmPercent = 50;
constexpr int kCalmLooks = 2;

// The two numbers of a thread's schedstat, added up; 0 if it has ended.
uint64_t WantedOf(const std::string& folder, const char* thread) {
  auto text = ReadSmallFile(folder + "/" + thread + "/schedstat");
  unsigned long long run = 0, waited = 0;
  if (!text.ok() || sscanf(text->c_str(), "%llu %llu", &run, &waited) != 2) return 0;
  return run + waited;
}

}  // namespace

std::optional<Demotion::Wish> Demotion::WishOf(pid_t pid, bool all) {
  clockid_t clock;
  timespec used;
  if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &used) < 0) return {};
  Wish wish;
  wish.run_ns =
      static_cast<uint64_t>(used.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(used.tv_nsec);
  if (!all) return wish;
  const std::string folder = Format("/proc/%d/task", pid);
  std::unique_ptr<DIR, int (*)(DIR*)> threads(opendir(folder.c_str()), closedir);
  if (threads == nullptr) return {};
  while (const dirent* one = readdir(threads.get())) {
    if (one->d_name[0] == '.') continue;
    wish.wanted_ns = std::max<uint64_t>(wish.wanted_ns, WantedOf(folder, one->d_name));
  }
  return wish;
}

std::vector<Demotion::Change> Demotion::Look(uint64_t now_ns) {
  std::vector<Change> changes;
  for (auto& [id, machine] : machines_) {
    if (LookAt(&machine, now_ns)) changes.push_back({id, machine.is_behind});
  }
  return changes;
}

// Whether it is otherwise now.
bool Demotion::LookAt(Machine* machine, uint64_t now_ns) const {
  auto wish = ask_(machine->pid, /*all=*/false);
  if (!wish) return false;
  const uint64_t since = now_ns - std::exchange(machine->seen_ns, now_ns);
  const bool is_first = since == now_ns;
  const uint64_t run = wish->run_ns - std::exchange(machine->run_ns, wish->run_ns);
  // One that is behind may get little, however much it wants.
  const bool is_asked = machine->is_behind || is_first || run * 100 >= since * kIdlePercent;
  if (is_asked) wish = ask_(machine->pid, /*all=*/true);
  if (!wish) return false;
  const std::optional<uint64_t> before = std::exchange(
      machine->wanted_ns, is_asked ? std::optional<uint64_t>(wish->wanted_ns) : std::nullopt);
  // What an earlier daemon has made of it counts no more.
  if (is_first) return true;
  // Of a thread that was not asked before it is not known yet.
  const uint64_t wanted =
      is_asked && before ? wish->wanted_ns - std::min(*before, wish->wanted_ns) : 0;
  machine->calm = wanted * 100 < since * kCalmPercent ? machine->calm + 1 : 0;
  const bool was_behind = machine->is_behind;
  if (wanted * 100 >= since * kBusyPercent) machine->is_behind = true;
  if (machine->calm >= kCalmLooks) machine->is_behind = false;
  return machine->is_behind != was_behind;
}

}  // namespace cube::pool
