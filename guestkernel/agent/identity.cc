#include "guestkernel/agent/identity.h"

#include <fcntl.h>
#include <linux/random.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/control_abi.h"

namespace cube::agent {
namespace {

// If `variable` is NAME=value of that name.
bool TakeVariable(const std::string& variable, std::string_view name, std::string* value) {
  if (!variable.starts_with(name) || variable[name.size()] != '=') return false;
  *value = variable.substr(name.size() + 1);
  return true;
}

}  // namespace

Result<Identity> Identity::Parse(std::span<const uint8_t> mailbox) {
  if (mailbox.size() < abi::kMailboxSize) return Errorf("the mailbox is too small");
  const uint8_t* place = mailbox.data() + abi::kIdentityOffset;
  const auto* header = reinterpret_cast<const abi::IdentityHeader*>(place);
  uint32_t bytes = header->string_bytes;
  if (bytes > abi::kMaxIdentityStrings) {
    return Errorf("identity of %u bytes, at most %u are possible", bytes, abi::kMaxIdentityStrings);
  }
  std::string packed(reinterpret_cast<const char*>(place + sizeof *header), bytes);
  std::vector<std::string> strings;
  for (size_t at = 0; at < packed.size();) {
    size_t end = packed.find('\0', at);
    if (end == std::string::npos) return Errorf("identity does not end with a zero byte");
    strings.push_back(packed.substr(at, end - at));
    at = end + 1;
  }
  if (strings.size() != header->string_count || strings.size() < abi::kIdentityFixedStrings) {
    return Errorf("identity of %zu strings where %u are announced", strings.size(),
                  header->string_count);
  }
  Identity identity;
  identity.sandbox_id = std::move(strings[0]);
  identity.hostname = std::move(strings[1]);
  identity.access_token = std::move(strings[2]);
  const uint32_t volumes = header->volume_count;
  if (volumes > abi::kMaxVolumes || volumes > strings.size() - abi::kIdentityFixedStrings) {
    return Errorf("identity with %u volumes in %zu strings", volumes, strings.size());
  }
  const size_t variables = abi::kIdentityFixedStrings + volumes;
  for (size_t i = abi::kIdentityFixedStrings; i < variables; ++i) {
    identity.volumes.push_back(std::move(strings[i]));
  }
  for (size_t i = variables; i < strings.size(); ++i) {
    if (TakeVariable(strings[i], abi::kDefaultUserVariable, &identity.default_user)) continue;
    if (TakeVariable(strings[i], abi::kDefaultWorkdirVariable, &identity.default_workdir)) continue;
    identity.environment.push_back(std::move(strings[i]));
  }
  identity.realtime_nanoseconds = header->realtime_nanoseconds;
  identity.entropy.assign(header->entropy, header->entropy + sizeof header->entropy);
  return identity;
}

Result<Freshness> Freshness::Prepare() {
  CUBE_ASSIGN(UniqueFd random, OpenFile("/dev/urandom", O_RDWR));
  return Freshness(std::move(random));
}

Status Freshness::Apply(const Identity& identity) const {
  Status first;
  auto note = [&first](bool done, const char* what) {
    if (!done && first.ok()) first = ErrnoError("%s", what);
  };
  // Entropy before everything that may draw from it. random(4): the structure is two ints, then the
  // bytes; a reseed makes every processor's generator start anew.
  struct {
    int entropy_count;
    int buffer_size;
    uint8_t buffer[abi::kEntropySize];
  } pool;
  static_assert(offsetof(decltype(pool), buffer) == sizeof(rand_pool_info));
  size_t size = std::min(identity.entropy.size(), sizeof pool.buffer);
  memcpy(pool.buffer, identity.entropy.data(), size);
  pool.buffer_size = static_cast<int>(size);
  pool.entropy_count = static_cast<int>(8 * size);
  note(ioctl(random_.get(), RNDADDENTROPY, &pool) == 0, "cannot add entropy");
  explicit_bzero(&pool, sizeof pool);
  note(ioctl(random_.get(), RNDRESEEDCRNG) == 0, "cannot reseed the random number generator");
  if (identity.realtime_nanoseconds > 0) {
    constexpr int64_t kNanoseconds = 1000000000;
    const timespec now = {static_cast<time_t>(identity.realtime_nanoseconds / kNanoseconds),
                          static_cast<long>(identity.realtime_nanoseconds % kNanoseconds)};
    note(clock_settime(CLOCK_REALTIME, &now) == 0, "cannot set the time");
  }
  if (!identity.hostname.empty()) {
    note(sethostname(identity.hostname.data(), identity.hostname.size()) == 0,
         "cannot set the hostname");
  }
  return first;
}

}  // namespace cube::agent
