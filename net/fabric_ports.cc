// What of a sandbox's network changes beside its policy, and what it has carried.
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <netinet/in.h>

#include "base/monotonic.h"
#include "net/fabric.h"

namespace cube::net {

Status Fabric::MapPort(const std::string& id, const PortMapping& mapping) {
  auto slot = SlotOf(id);
  if (!slot) return Errorf("sandbox \"%.64s\" has no network", id.c_str());
  if (mapping.host_port == 0 || mapping.port == 0 ||
      (mapping.protocol != IPPROTO_TCP && mapping.protocol != IPPROTO_UDP)) {
    return Errorf("a mapping is of TCP or UDP, from a port to a port, each from 1 to 65535");
  }
  bpf::port_key key = {htons(mapping.host_port), mapping.protocol, 0};
  bpf::port_target target = {*slot, At(*slot).epoch, htons(mapping.port), 0};
  bpf::port_target present = {};
  if (bpf_map_lookup_elem(programs_->maps().ports, &key, &present) == 0 &&
      present.slot < CUBE_MAX_SLOTS && At(present.slot).epoch == present.epoch) {
    if (present.slot == target.slot && present.port == target.port) return OkStatus();
    return Errorf("port %u leads to another sandbox, or another port, already", mapping.host_port);
  }
  if (bpf_map_update_elem(programs_->maps().ports, &key, &target, BPF_ANY) == 0) {
    return OkStatus();
  }
  return ErrnoError("mapping port %u, with room for %d", mapping.host_port, CUBE_MAX_PORTS);
}

Status Fabric::UnmapPort(uint8_t protocol, uint16_t host_port) {
  bpf::port_key key = {htons(host_port), protocol, 0};
  if (bpf_map_delete_elem(programs_->maps().ports, &key) == 0) return OkStatus();
  return Errorf("port %u is not mapped", host_port);
}

std::vector<PortMapping> Fabric::Ports(const std::string& id) const {
  std::vector<PortMapping> mappings;
  auto slot = SlotOf(id);
  if (!slot) return mappings;
  int map = programs_->maps().ports;
  bpf::port_key key, next;
  const void* at = nullptr;
  while (bpf_map_get_next_key(map, at, &next) == 0) {
    bpf::port_target target;
    if (bpf_map_lookup_elem(map, &next, &target) == 0 && target.slot == *slot) {
      mappings.push_back({next.protocol, ntohs(next.port), ntohs(target.port)});
    }
    key = next;
    at = &key;
  }
  return mappings;
}

void Fabric::OpenAddress(uint32_t slot, uint32_t address, uint32_t seconds) {
  bpf::opened_key key = {slot, address};
  bpf::opened value = {MonotonicNow() + uint64_t{seconds} * CUBE_SECOND, At(slot).epoch, 0};
  bpf_map_update_elem(programs_->maps().opened, &key, &value, BPF_ANY);
}

void Fabric::OpenAddress6(uint32_t slot, const bpf::address6& address, uint32_t seconds) {
  if (!programs_->ipv6()) return;
  bpf::v6::opened_key key = {slot, address};
  bpf::opened value = {MonotonicNow() + uint64_t{seconds} * CUBE_SECOND, At(slot).epoch, 0};
  bpf_map_update_elem(programs_->maps6().opened, &key, &value, BPF_ANY);
}

Traffic Fabric::TrafficOf(uint32_t slot) const {
  std::vector<bpf::slot_counters> all(static_cast<size_t>(libbpf_num_possible_cpus()));
  Traffic sum;
  if (bpf_map_lookup_elem(programs_->maps().counters, &slot, all.data()) != 0) return sum;
  for (const bpf::slot_counters& one : all) {
    sum.packets_out += one.packets_out;
    sum.bytes_out += one.bytes_out;
    sum.packets_in += one.packets_in;
    sum.bytes_in += one.bytes_in;
    sum.denied += one.denied;
    sum.flows += one.flows;
  }
  return sum;
}

}  // namespace cube::net
