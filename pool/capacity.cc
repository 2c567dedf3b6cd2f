#include "pool/capacity.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/byte_io.h"
#include "base/monotonic.h"

namespace cube::pool {
namespace {

// The host is not looked at more often; reading /proc/meminfo takes some 30 us.
constexpr uint64_t kFresh = 20'000'000;
// What a clone takes of the host's memory before its guest does anything.
constexpr uint64_t kCloneMib = 4;
// A pool leaves this much more than the reserve: creates come first.
constexpr uint64_t kPoolMarginMib = 256;

uint64_t Field(const std::string& text, const char* name) {
  size_t place = text.find(name);
  return place == std::string::npos ? 0
                                    : strtoull(text.c_str() + place + strlen(name), nullptr, 10);
}

}  // namespace

HostResources HostResources::Read() {
  HostResources host;
  auto memory = ReadSmallFile("/proc/meminfo");
  if (memory.ok()) {
    host.total_mib = Field(*memory, "MemTotal:") / 1024;
    host.available_mib = Field(*memory, "MemAvailable:") / 1024;
  }
  host.cpus = static_cast<uint32_t>(sysconf(_SC_NPROCESSORS_ONLN));
  // Kernels without it have no such file.
  auto pressure = ReadSmallFile("/proc/pressure/memory");
  if (pressure.ok()) {
    size_t place = pressure->find("some avg10=");
    if (place != std::string::npos) {
      host.memory_pressure = strtod(pressure->c_str() + place + strlen("some avg10="), nullptr);
    }
  }
  return host;
}

Capacity::Lease::Lease(std::shared_ptr<Counters> counters, uint64_t memory_mib, uint32_t cpus)
    : counters_(std::move(counters)), memory_mib_(memory_mib), cpus_(cpus) {
  counters_->memory_mib += memory_mib;
  counters_->cpus += cpus;
  ++counters_->machines;
}

Capacity::Lease& Capacity::Lease::operator=(Lease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  counters_ = std::move(other.counters_);
  memory_mib_ = other.memory_mib_;
  cpus_ = other.cpus_;
  return *this;
}

void Capacity::Lease::Release() {
  if (counters_ == nullptr) return;
  counters_->memory_mib -= memory_mib_;
  counters_->cpus -= cpus_;
  --counters_->machines;
  counters_.reset();
}

const HostResources& Capacity::host() {
  uint64_t now = MonotonicNow();
  if (read_at_ == 0 || now - read_at_ > kFresh) {
    host_ = reader_();
    read_at_ = now;
  }
  return host_;
}

uint64_t Capacity::memory_limit_mib() {
  const HostResources& all = host();
  uint64_t own = config_.memory_mib != 0               ? config_.memory_mib
                 : all.total_mib > config_.reserve_mib ? all.total_mib - config_.reserve_mib
                                                       : 0;
  return static_cast<uint64_t>(static_cast<double>(own) * config_.memory_overcommit);
}

double Capacity::cpu_limit() { return host().cpus * config_.cpu_overcommit; }

Outcome<Done> Capacity::Check(uint64_t memory_mib, uint32_t cpus) {
  uint64_t limit = memory_limit_mib();
  if (counters_->memory_mib + memory_mib > limit) {
    return Refuse(Fault::kNoCapacity,
                  "no capacity: guests have %llu MiB of the %llu MiB they may have together, and "
                  "this one needs %llu",
                  static_cast<unsigned long long>(counters_->memory_mib),
                  static_cast<unsigned long long>(limit),
                  static_cast<unsigned long long>(memory_mib));
  }
  if (static_cast<double>(counters_->cpus + cpus) > cpu_limit()) {
    return Refuse(Fault::kNoCapacity,
                  "no capacity: guests have %llu of the %.0f vCPUs they may have together, and "
                  "this one needs %u",
                  static_cast<unsigned long long>(counters_->cpus), cpu_limit(), cpus);
  }
  if (host().available_mib < config_.reserve_mib + kCloneMib) {
    return Refuse(Fault::kNoCapacity,
                  "no capacity: the host has %llu MiB of memory left, of which %llu are reserved",
                  static_cast<unsigned long long>(host().available_mib),
                  static_cast<unsigned long long>(config_.reserve_mib));
  }
  return Done();
}

Outcome<Capacity::Lease> Capacity::Take(uint64_t memory_mib, uint32_t cpus) {
  POOL_TRY(Check(memory_mib, cpus));
  return Lease(counters_, memory_mib, cpus);
}

bool Capacity::UnderPressure() {
  return host().available_mib < config_.reserve_mib + kPoolMarginMib ||
         host().memory_pressure >= config_.psi_some_avg10;
}

bool Capacity::RoomForPool(uint64_t memory_mib, uint32_t cpus) {
  // Room for a create beside it.
  return !UnderPressure() && Check(2 * memory_mib, 2 * cpus).ok();
}

}  // namespace cube::pool
