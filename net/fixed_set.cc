#include "net/fixed_set.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>

namespace cube::net {
namespace {

constexpr Network kFixed[] = {
    {0x00000000, 8},   // this network
    {0x0a000000, 8},   // RFC 1918
    {0x64400000, 10},  // RFC 6598, CGNAT
    {0x7f000000, 8},   // loopback
    {0xa9fe0000, 16},  // link-local
    {0xac100000, 12},  // RFC 1918
    {0xc0000000, 24},  // RFC 6890
    {0xc0a80000, 16},  // RFC 1918
    {0xc6120000, 15},  // RFC 2544, in which the host's addresses of sandboxes are, too
    {0xe0000000, 4},   // multicast
    {0xf0000000, 4},   // reserved, and broadcast
};

bpf::fixed_key Key(const Network& network) { return {network.prefix, htonl(network.address)}; }

}  // namespace

std::map<Network, bool> FixedSet::Entries(const std::vector<Network>& exceptions,
                                          const std::vector<Network>& own) {
  std::map<Network, bool> entries;
  for (const Network& network : kFixed) entries[network] = true;
  for (const Network& exception : exceptions) {
    std::erase_if(entries, [&](const auto& entry) { return exception.Contains(entry.first); });
    entries[exception] = false;
  }
  for (const Network& network : own) {
    std::erase_if(entries, [&](const auto& entry) { return network.Contains(entry.first); });
    entries[network] = true;
  }
  return entries;
}

Status FixedSet::Set(std::map<Network, bool> entries) {
  if (entries.size() > CUBE_MAX_FIXED) {
    return Errorf("%zu networks that are denied to all, or excepted from that, are more than %d",
                  entries.size(), CUBE_MAX_FIXED);
  }
  for (const auto& [network, denied] : entries) {
    bpf::fixed_key key = Key(network);
    uint32_t action = denied ? FIXED_DENIED : FIXED_EXCEPTED;
    if (bpf_map_update_elem(map_, &key, &action, BPF_ANY) != 0) {
      return ErrnoError("denying %s to all", NetworkText(network).c_str());
    }
  }
  // What an earlier daemon has left is among what is there.
  std::vector<bpf::fixed_key> gone;
  bpf::fixed_key key, next;
  const void* at = nullptr;
  while (bpf_map_get_next_key(map_, at, &next) == 0) {
    Network network = {ntohl(next.address), static_cast<uint8_t>(next.prefix)};
    if (!entries.contains(network)) gone.push_back(next);
    key = next;
    at = &key;
  }
  for (const bpf::fixed_key& each : gone) bpf_map_delete_elem(map_, &each);
  entries_ = std::move(entries);
  return OkStatus();
}

bool FixedSet::IsDenied(uint32_t address) const {
  int longest = -1;
  bool denied = false;
  for (const auto& [network, is_denied] : entries_) {
    if (network.Contains({address, 32}) && network.prefix > longest) {
      longest = network.prefix;
      denied = is_denied;
    }
  }
  return denied;
}

}  // namespace cube::net
