#include "guestkernel/agent/mailbox.h"

#include <sys/mman.h>

namespace cube::agent {
namespace {

Status Check(const uint8_t* memory) {
  const auto* header = reinterpret_cast<const abi::MailboxHeader*>(memory);
  if (header->magic != abi::kMailboxMagic) {
    return Errorf("no mailbox at 0x%llx: found 0x%08x, expected 0x%08x",
                  static_cast<unsigned long long>(abi::kMailboxAddress), header->magic,
                  abi::kMailboxMagic);
  }
  if (header->version != abi::kMailboxVersion) {
    return Errorf("the VMM's mailbox has version %u, this agent speaks %u", header->version,
                  abi::kMailboxVersion);
  }
  return OkStatus();
}

}  // namespace

Result<Mailbox> Mailbox::Map(int dev_mem) {
  CUBE_ASSIGN(Mapping mapping,
              Mapping::Map(abi::kMailboxSize, PROT_READ | PROT_WRITE, MAP_SHARED, dev_mem,
                           abi::kMailboxAddress, "the mailbox"));
  CUBE_TRY(Check(mapping.data()));
  uint8_t* memory = mapping.data();
  return Mailbox(std::move(mapping), memory);
}

Result<Mailbox> Mailbox::Over(uint8_t* memory) {
  CUBE_TRY(Check(memory));
  return Mailbox(Mapping(), memory);
}

}  // namespace cube::agent
