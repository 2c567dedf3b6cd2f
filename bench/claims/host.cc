#include "bench/claims/host.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "bench/claims/child.h"

namespace cube::bench {
namespace {

namespace json = boost::json;

std::string FirstOf(const std::string& path, const std::string& name) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    size_t colon = line.find(':');
    if (colon == std::string::npos || !line.starts_with(name)) continue;
    size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

std::string TextOf(const json::object& object, const char* name) {
  const json::value* value = object.if_contains(name);
  return value != nullptr && value->is_string() ? std::string(value->get_string()) : "";
}

// The first two numbers of the line "cpu" of /proc/stat that count: all, and stolen.
void ReadProcessorTime(uint64_t* all, uint64_t* steal) {
  std::ifstream in("/proc/stat");
  std::string name;
  in >> name;
  *all = *steal = 0;
  // user nice system idle iowait irq softirq steal; what follows is counted in user already.
  for (int i = 0; i < 8; ++i) {
    uint64_t ticks = 0;
    in >> ticks;
    *all += ticks;
    if (i == 7) *steal = ticks;
  }
}

}  // namespace

Result<std::vector<Fact>> MachineFacts(const std::string& vmm) {
  auto run = RunChildWell({vmm, "host", "--json"});
  if (!run.ok()) return run.error();
  json::error_code failed;
  json::value value = json::parse(run->output, failed);
  const json::object* host = failed ? nullptr : value.if_object();
  if (host == nullptr) return Errorf("%s host --json: no object", vmm.c_str());
  utsname name;
  uname(&name);
  auto memory = MemoryOfHost();
  auto version = RunChildWell({vmm, "--version"});
  if (!version.ok()) return version.error();
  std::string hypervisor =
      FirstOf("/proc/cpuinfo", "flags").find(" hypervisor") != std::string::npos
          ? "a virtual machine"
          : "not virtual";
  std::string frequency = FirstOf("/proc/cpuinfo", "cpu MHz");
  return std::vector<Fact>{
      {"processor", FirstOf("/proc/cpuinfo", "model name")},
      {"processors", std::to_string(sysconf(_SC_NPROCESSORS_ONLN))},
      {"MHz at the start", frequency},
      {"memory", std::to_string(memory["MemTotal"] / 1024) + " MiB"},
      {"kernel", std::string(name.sysname) + " " + name.release},
      {"machine", hypervisor},
      {"virtual machines", TextOf(*host, "verdict")},
      {"cube", version->output.substr(0, version->output.find('\n'))},
  };
}

std::map<std::string, int64_t> MemoryOfHost() {
  std::map<std::string, int64_t> memory;
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    memory[line.substr(0, colon)] = strtoll(line.c_str() + colon + 1, nullptr, 10);
  }
  return memory;
}

Result<ProcessMemory> MemoryOfProcess(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/smaps_rollup");
  if (!in) return ErrnoError("the memory of process %d", pid);
  ProcessMemory memory;
  std::string name;
  for (std::string line; std::getline(in, line);) {
    int64_t kib = 0;
    std::istringstream words(line);
    words >> name >> kib;
    if (name == "Pss:") memory.pss = kib;
    if (name == "Anonymous:") memory.anonymous = kib;
    if (name == "Private_Dirty:") memory.private_dirty = kib;
  }
  return memory;
}

double ProcessorMs(pid_t pid) {
  double ms = 0;
  std::error_code failed;
  std::filesystem::directory_iterator at("/proc/" + std::to_string(pid) + "/task", failed), end;
  for (; !failed && at != end; at.increment(failed)) {
    std::ifstream in(at->path() / "schedstat");
    double ns = 0;
    if (in >> ns) ms += ns / 1e6;
  }
  return ms;
}

NoiseMeter::NoiseMeter() { ReadProcessorTime(&all_, &steal_); }

NoiseMeter::Noise NoiseMeter::Read() {
  uint64_t all = 0, steal = 0;
  ReadProcessorTime(&all, &steal);
  Noise noise;
  if (all > all_) {
    noise.steal_percent =
        100 * static_cast<double>(steal - steal_) / static_cast<double>(all - all_);
  }
  all_ = all;
  steal_ = steal;
  getloadavg(&noise.load, 1);
  return noise;
}

}  // namespace cube::bench
