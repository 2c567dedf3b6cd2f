#include "vmm/identity.h"

#include <sys/random.h>
#include <time.h>

#include <cstring>
#include <new>

#include "base/control_abi.h"

namespace cube::vmm {

Status WriteIdentity(std::span<uint8_t> mailbox, const Identity& identity) {
  if (mailbox.size() < abi::kMailboxSize) return Errorf("the machine has no mailbox");
  std::vector<const std::string*> strings = {&identity.sandbox_id, &identity.hostname,
                                             &identity.access_token};
  for (const std::string& path : identity.volumes) strings.push_back(&path);
  for (const std::string& variable : identity.environment) strings.push_back(&variable);
  std::string packed;
  for (const std::string* text : strings) {
    if (text->find('\0') != std::string::npos) return Errorf("a zero byte in a clone's identity");
    packed += *text;
    packed += '\0';
  }
  if (packed.size() > abi::kMaxIdentityStrings) {
    return Errorf(
        "a clone's id, token, volumes and environment take %zu bytes, at most %u are possible",
        packed.size(), abi::kMaxIdentityStrings);
  }
  uint8_t* place = mailbox.data() + abi::kIdentityOffset;
  auto* header = reinterpret_cast<abi::IdentityHeader*>(place);
  if (getrandom(header->entropy, sizeof header->entropy, 0) != sizeof header->entropy) {
    return ErrnoError("getrandom");
  }
  memcpy(place + sizeof *header, packed.data(), packed.size());
  header->string_count = static_cast<uint32_t>(strings.size());
  header->volume_count = static_cast<uint32_t>(identity.volumes.size());
  header->string_bytes = static_cast<uint32_t>(packed.size());
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  header->realtime_nanoseconds = int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
  header->generation.fetch_add(1, std::memory_order_release);
  return OkStatus();
}

}  // namespace cube::vmm
