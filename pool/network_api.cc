#include "pool/network_api.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "base/json_writer.h"
#include "net/trace.h"

namespace cube::pool {
namespace {

constexpr uint64_t kMaxRate = uint64_t{1} << 40;
constexpr milliseconds kTraceWait(1'000);

void AddStrings(const char* key, const std::vector<std::string>& strings, JsonWriter* json) {
  json->Key(key).BeginArray();
  for (const std::string& text : strings) json->String(text);
  json->EndArray();
}

const char* ProtocolName(uint8_t protocol) {
  return protocol == 6                     ? "tcp"
         : protocol == 17                  ? "udp"
         : protocol == 1 || protocol == 58 ? "icmp"
                                           : "";
}

void AddSandboxNetwork(const net::Fabric& fabric, const std::string& id, uint32_t slot,
                       const net::Policy& policy, JsonWriter* json) {
  net::Traffic traffic = fabric.TrafficOf(slot);
  json->BeginObject().Key("id").String(id).Key("tap").String(fabric.TapName(slot));
  json->Key("host_address").String(net::AddressText(fabric.SlotState(slot).host_address));
  bool has_ipv6 = fabric.WhyNoIpv6().empty();
  json->Key("host_address6").String(has_ipv6 ? net::AddressText(fabric.HostAddress6(slot)) : "");
  json->Key("flows").Uint(fabric.SlotState(slot).flows);
  json->Key("packets_out").Uint(traffic.packets_out).Key("bytes_out").Uint(traffic.bytes_out);
  json->Key("packets_in").Uint(traffic.packets_in).Key("bytes_in").Uint(traffic.bytes_in);
  json->Key("denied").Uint(traffic.denied);
  json->Key("internet").Bool(policy.internet);
  AddStrings("allow", policy.AllowText(), json);
  AddStrings("deny", policy.DenyText(), json);
  json->Key("bytes_per_second").Uint(policy.bytes_per_second);
  json->Key("packets_per_second").Uint(policy.packets_per_second);
  json->Key("ports").BeginArray();
  for (const net::PortMapping& mapping : fabric.Ports(id)) {
    json->BeginObject().Key("protocol").String(ProtocolName(mapping.protocol));
    json->Key("host_port").Uint(mapping.host_port).Key("port").Uint(mapping.port).EndObject();
  }
  json->EndArray().EndObject();
}

std::string ListAnswer(Node* node, const net::Fabric& fabric, const std::string& only) {
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("networks").BeginArray();
  for (const auto& [id, slot] : fabric.sandboxes()) {
    if (!only.empty() && id != only) continue;
    auto sandbox = node->Find(id);
    net::Policy none;
    none.internet = false;
    AddSandboxNetwork(fabric, id, slot, sandbox.ok() ? (*sandbox)->record().network : none, &json);
  }
  return json.EndArray().EndObject().text();
}

std::string StatsAnswer(NodeNetwork* network) {
  net::Fabric& fabric = network->fabric();
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("uplink").String(fabric.uplink_name());
  json.Key("sandboxes").Uint(fabric.sandboxes().size());
  json.Key("free_taps").Uint(fabric.free_taps());
  json.Key("flows").Uint(network->reaper().statistics().flows);
  json.Key("reaped").Uint(network->reaper().statistics().reaped);
  json.Key("dns_queries").Uint(network->resolver().statistics().queries);
  json.Key("dns_refused").Uint(network->resolver().statistics().refused);
  json.Key("dns_failed").Uint(network->resolver().statistics().failed);
  json.Key("peeked").Uint(network->proxy().statistics().connections);
  json.Key("peeked_refused").Uint(network->proxy().statistics().refused);
  json.Key("ipv6").Bool(fabric.WhyNoIpv6().empty()).Key("why_no_ipv6").String(fabric.WhyNoIpv6());
  json.Key("reasons").BeginObject();
  std::vector<uint64_t> counts(static_cast<size_t>(libbpf_num_possible_cpus()));
  for (uint32_t reason = 0; reason < net::bpf::REASONS; ++reason) {
    if (bpf_map_lookup_elem(fabric.programs().maps().reasons, &reason, counts.data()) != 0)
      continue;
    uint64_t sum = 0;
    for (uint64_t count : counts) sum += count;
    json.Key(net::ReasonName(reason)).Uint(sum);
  }
  return json.EndObject().EndObject().text();
}

// "ADDRESS[:PORT]", of IPv6 "[ADDRESS]:PORT".
std::string RemoteText(const net::bpf::trace_event& event) {
  if (event.family == 0) return "";
  bool is_ipv6 = event.family == 6;
  std::string text =
      is_ipv6 ? net::AddressText(event.remote) : net::AddressText(event.remote.words[0]);
  if (event.remote_port == 0) return text;
  if (is_ipv6) text = "[" + text + "]";
  return text + Format(":%u", ntohs(event.remote_port));
}

std::string TraceAnswer(NodeNetwork* network, const std::vector<net::bpf::trace_event>& events) {
  net::Fabric& fabric = network->fabric();
  JsonWriter json;
  json.BeginObject().Key("ok").Bool(true).Key("verdicts").BeginArray();
  for (const net::bpf::trace_event& event : events) {
    net::bpf::slot slot = fabric.SlotState(event.slot % CUBE_MAX_SLOTS);
    std::string remote = RemoteText(event);
    json.BeginObject().Key("at_ms").Uint(event.at / 1'000'000);
    json.Key("id").String(std::string(slot.id, strnlen(slot.id, sizeof slot.id)));
    json.Key("direction").String(event.inward != 0 ? "in" : "out");
    json.Key("protocol").String(ProtocolName(event.protocol));
    json.Key("port").Uint(ntohs(event.local_port)).Key("remote").String(remote);
    json.Key("bytes").Uint(event.bytes).Key("verdict").String(net::ReasonName(event.reason));
    json.EndObject();
  }
  return json.EndArray().EndObject().text();
}

Task<Outcome<std::string>> Map(std::shared_ptr<Sandbox> sandbox, std::string op,
                               RequestFields* fields) {
  POOL_CO_ASSIGN(std::string protocol, fields->String("protocol", "tcp"));
  POOL_CO_ASSIGN(std::optional<uint64_t> host_port, fields->Number("host_port", 65535));
  net::PortMapping mapping;
  mapping.protocol = protocol == "tcp" ? 6 : 17;
  mapping.host_port = static_cast<uint16_t>(host_port.value_or(0));
  if (op == "net.map") {
    POOL_CO_ASSIGN(std::optional<uint64_t> port, fields->Number("port", 65535));
    mapping.port = static_cast<uint16_t>(port.value_or(0));
  }
  POOL_CO_TRY(fields->Finish());
  if (protocol != "tcp" && protocol != "udp") {
    co_return Refuse(Fault::kInvalid, "\"protocol\" is neither \"tcp\" nor \"udp\"");
  }
  if (op == "net.map") {
    POOL_CO_TRY(co_await sandbox->MapPort(mapping));
  } else {
    POOL_CO_TRY(co_await sandbox->UnmapPort(mapping.protocol, mapping.host_port));
  }
  co_return std::string("{\"ok\":true}");
}

}  // namespace

Outcome<net::Policy> PolicyFields(RequestFields* fields) {
  POOL_ASSIGN(std::vector<std::string> allow, fields->Strings("allow"));
  POOL_ASSIGN(std::vector<std::string> deny, fields->Strings("deny"));
  POOL_ASSIGN(bool internet, fields->Bool("internet", true));
  POOL_ASSIGN(std::optional<uint64_t> bytes, fields->Number("bytes_per_second", kMaxRate));
  POOL_ASSIGN(std::optional<uint64_t> packets, fields->Number("packets_per_second", kMaxRate));
  auto policy = net::Policy::Parse(allow, deny, internet);
  if (!policy.ok()) return Refuse(Fault::kInvalid, "%s", policy.error().message().c_str());
  policy->bytes_per_second = bytes.value_or(0);
  policy->packets_per_second = packets.value_or(0);
  auto rules = net::CompilePolicy(*policy);
  if (!rules.ok()) return Refuse(Fault::kInvalid, "%s", rules.error().message().c_str());
  auto rules6 = net::CompilePolicy6(*policy);
  if (!rules6.ok()) return Refuse(Fault::kInvalid, "%s", rules6.error().message().c_str());
  return std::move(*policy);
}

Outcome<net::Policy> PolicyOfLists(const NetworkPolicy& lists) {
  std::vector<std::string> texts[2];
  for (int i = 0; i < 2; ++i) {
    for (const std::string& text : i == 0 ? lists.allow_out : lists.deny_out) {
      size_t slash = text.find('/');
      if (text.find(':') != std::string::npos) {
        // Bits beyond a prefix are cut off here as well; what is no network is left out.
        auto address = net::ParseNetwork6(text.substr(0, slash));
        auto prefix =
            net::ParseNetwork6(slash == std::string::npos ? "::" : "::" + text.substr(slash));
        if (!address.ok() || !prefix.ok()) continue;
        prefix->address = address->address & prefix->mask();
        texts[i].push_back(net::NetworkText(*prefix));
        continue;
      }
      auto address = net::ParseNetwork(text.substr(0, slash));
      if (slash == std::string::npos || !address.ok()) {
        texts[i].push_back(text);
        continue;
      }
      auto prefix = net::ParseNetwork("0.0.0.0" + text.substr(slash));
      if (!prefix.ok()) return Refuse(Fault::kInvalid, "%s", prefix.error().message().c_str());
      prefix->address = address->address & prefix->mask();
      texts[i].push_back(net::NetworkText(*prefix));
    }
  }
  auto policy = net::Policy::Parse(texts[0], texts[1], true);
  if (!policy.ok()) return Refuse(Fault::kInvalid, "%s", policy.error().message().c_str());
  return std::move(*policy);
}

Task<Outcome<std::string>> NetworkOperation(Node* node, std::string op, RequestFields* fields) {
  NodeNetwork* network = node->context().network.get();
  if (network == nullptr) {
    co_return Refuse(Fault::kConflict, "this node's sandboxes have no network");
  }
  if (op == "net.list" || op == "net.stats") {
    POOL_CO_TRY(fields->Finish());
    co_return op == "net.list" ? ListAnswer(node, network->fabric(), "") : StatsAnswer(network);
  }
  if (op == "net.trace") {
    POOL_CO_ASSIGN(bool all, fields->Bool("all", false));
    POOL_CO_TRY(fields->Finish());
    co_return TraceAnswer(network, co_await network->AwaitVerdicts(all, kTraceWait));
  }
  POOL_CO_ASSIGN(std::string id, fields->String("id"));
  POOL_CO_ASSIGN(std::shared_ptr<Sandbox> sandbox, node->Find(id));
  if (op == "net.show") {
    POOL_CO_TRY(fields->Finish());
    co_return ListAnswer(node, network->fabric(), id);
  }
  if (op == "net.policy") {
    POOL_CO_ASSIGN(net::Policy policy, PolicyFields(fields));
    POOL_CO_TRY(fields->Finish());
    POOL_CO_TRY(co_await sandbox->SetNetwork(std::move(policy)));
    co_return std::string("{\"ok\":true}");
  }
  if (op == "net.map" || op == "net.unmap") co_return co_await Map(sandbox, op, fields);
  co_return Refuse(Fault::kInvalid, "unknown operation \"%.64s\"", op.c_str());
}

}  // namespace cube::pool
