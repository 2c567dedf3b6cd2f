#include "net/fixed_set.h"

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

constexpr Network6 Of(uint32_t high, uint32_t next, uint8_t prefix) {
  return {Uint128{uint64_t{high} << 32 | next} << 64, prefix};
}

// Loopback, link-local, site-local, unique local, multicast, IPv4 mapped, embedded and translated
// (64:ff9b::/96, 64:ff9b:1::/48) are all outside of kGlobal6.
constexpr Network6 kFixed6[] = {
    {0, 0},                 // everything
    Of(0x20010000, 0, 23),  // RFC 2928: Teredo (2001::/32) among them
    Of(0x20020000, 0, 16),  // RFC 3056, 6to4
};

std::map<Network, bool> Base(const Network*) {
  std::map<Network, bool> entries;
  for (const Network& network : kFixed) entries[network] = true;
  return entries;
}

std::map<Network6, bool> Base(const Network6*) {
  std::map<Network6, bool> entries;
  for (const Network6& network : kFixed6) entries[network] = true;
  entries[kGlobal6] = false;
  return entries;
}

}  // namespace

template <typename N>
typename FixedSetOf<N>::Entries FixedSetOf<N>::Make(const std::vector<N>& exceptions,
                                                    const std::vector<N>& own) {
  Entries entries = Base(static_cast<const N*>(nullptr));
  for (const N& exception : exceptions) {
    std::erase_if(entries, [&](const auto& entry) { return exception.Contains(entry.first); });
    entries[exception] = false;
  }
  for (const N& network : own) {
    std::erase_if(entries, [&](const auto& entry) { return network.Contains(entry.first); });
    entries[network] = true;
  }
  return entries;
}

template <typename N>
Status FixedSetOf<N>::Set(Entries entries) {
  using Key = typename KeysOf<N>::Fixed;
  if (entries.size() > CUBE_MAX_FIXED) {
    return Errorf("%zu networks that are denied to all, or excepted from that, are more than %d",
                  entries.size(), CUBE_MAX_FIXED);
  }
  for (const auto& [network, denied] : entries) {
    Key key = {network.prefix, ToWire(network.address)};
    uint32_t action = denied ? FIXED_DENIED : FIXED_EXCEPTED;
    if (bpf_map_update_elem(map_, &key, &action, BPF_ANY) != 0) {
      return ErrnoError("denying %s to all", NetworkText(network).c_str());
    }
  }
  // What an earlier daemon has left is among what is there.
  std::vector<Key> gone;
  Key key, next;
  const void* at = nullptr;
  while (bpf_map_get_next_key(map_, at, &next) == 0) {
    N network = {FromWire(next.address), static_cast<uint8_t>(next.prefix)};
    if (!entries.contains(network)) gone.push_back(next);
    key = next;
    at = &key;
  }
  for (const Key& each : gone) bpf_map_delete_elem(map_, &each);
  entries_ = std::move(entries);
  return OkStatus();
}

template <typename N>
bool FixedSetOf<N>::IsDenied(decltype(N::address) address) const {
  int longest = -1;
  bool denied = false;
  for (const auto& [network, is_denied] : entries_) {
    if (network.Contains({address, N::kBits}) && network.prefix > longest) {
      longest = network.prefix;
      denied = is_denied;
    }
  }
  return denied;
}

template class FixedSetOf<Network>;
template class FixedSetOf<Network6>;

}  // namespace cube::net
